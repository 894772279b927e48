//! The method, top to bottom: one DenseCL step, of which MoCo-v2's is a part.
//!
//! Source: Wang et al., arXiv 2011.09157, section 3; He et al., arXiv 1911.05722, algorithm 1;
//! Chen et al., arXiv 2003.04297. The golden files under `tests/golden/` state this step
//! independently.

use tch::{Device, Kind, Tensor};

use crate::distributed::{World, WorldError};
use crate::loss::{LossOptions, info_nce};
use crate::measures::Measures;
use crate::native::{self, NativeError};
use crate::network::{BatchPart, DenseEmbedding, Embedding, Encoder, EncoderSpec, Statistics};
use crate::queue::{Queue, QueueError};

/// Options of the contrastive loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastOptions {
    /// Vectors in each queue, K.
    pub queue_length: i64,
    /// τ in the InfoNCE loss.
    pub temperature: f64,
    /// Share of the key encoder that a step keeps, m.
    pub momentum: f64,
    /// Groups of images, over all processes, that BatchNorm treats as batches of their own.
    pub bn_splits: i64,
    /// Negatives that the loss looks at together; bounds its memory.
    pub loss_chunk: i64,
    /// Type in which convolutions and matrix products are computed; weights keep their own.
    pub products: Kind,
}

/// Query and key encoder with their queues of negatives.
#[derive(Debug)]
pub struct DenseCl {
    /// Trained by gradient descent.
    pub query: Encoder,
    /// The momentum encoder; its BatchNorm buffers are its own.
    pub key: Encoder,
    /// Global keys of earlier batches.
    pub global_queue: Queue,
    /// One pooled dense key per image of earlier batches; `None` for MoCo-v2.
    pub dense_queue: Option<Queue>,
    options: ContrastOptions,
}

/// A batch and how it passes through the encoders.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The processes that share the batch. Each has N of its images, those of process 0 first.
    pub world: &'a World,
    /// First view of every image, normalised, `[N, 3, H, W]`.
    pub view_q: &'a Tensor,
    /// Second view.
    pub view_k: &'a Tensor,
    /// A permutation of the batch of all processes, for the key encoder's BatchNorm groups; with
    /// one group it would change nothing.
    pub shuffle: Option<&'a [i64]>,
    /// λ, weight of the dense loss.
    pub loss_lambda: f64,
    /// Equal parts in which the batch goes through the encoders, to fit into memory. The result
    /// is that of the whole batch: BatchNorm's groups are cut from the parts, so `parts` divides
    /// the number of those that a process has.
    pub parts: i64,
}

/// Keys of the batch of all processes, for the queues.
#[derive(Debug)]
pub struct NewKeys {
    /// `[N, D]`, of unit length.
    pub global: Tensor,
    /// One pooled dense key an image, `[N, D]`, of unit length; `None` for MoCo-v2.
    pub dense: Option<Tensor>,
}

impl DenseCl {
    /// Two equal random encoders and random queues, drawn from libtorch's generator.
    pub fn new(spec: EncoderSpec, options: ContrastOptions, kind: Kind, device: Device) -> Self {
        let query = Encoder::new(spec, kind, device).trainable();
        let key = Encoder::new(spec, kind, device);
        tch::no_grad(|| {
            for (key, query) in key.tensors().parameters().zip(query.tensors().parameters()) {
                key.shallow_clone().copy_(query);
            }
        });
        let queue = || Queue::random(options.queue_length, spec.dim, kind, device);
        Self { query, key, global_queue: queue(), dense_queue: spec.dense.then(queue), options }
    }

    /// Options of the loss.
    pub fn options(&self) -> ContrastOptions {
        self.options
    }

    /// Computes the loss of a batch and adds its gradients to the query encoder's. Returns what was
    /// measured, and the keys to [`enqueue`](Self::enqueue) after the update. All of it is the whole
    /// batch's at every process.
    ///
    /// # Errors
    /// If another process is lost, or libtorch refuses.
    pub fn forward_backward(&mut self, step: &Step<'_>) -> Result<(Measures, NewKeys), WorldError> {
        self.update_momentum_encoder()?;
        let keys = tch::no_grad(|| self.embed_keys(step))?;
        let size = step.view_q.size()[0] / step.parts;
        let mut measures = Vec::new();
        for index in 0..step.parts {
            let part = BatchPart { index, count: step.parts };
            let query = self.embed(&self.query, &step.view_q.narrow(0, index * size, size), step, part)?;
            let (loss, measured) = self.contrast(&query, &keys.narrow(index * size, size), step.loss_lambda);
            (loss / step.parts as f64).backward();
            measures.push(measured);
        }
        let measures = Measures::mean(&measures);
        self.average(step.world, &measures)?;
        let gather = |keys: &Tensor| step.world.gather(keys);
        let dense = keys.dense.as_ref().map(|dense| gather(&dense.pooled)).transpose()?;
        Ok((measures, NewKeys { global: gather(&keys.global)?, dense }))
    }

    /// Every process has seen as many images, in as many BatchNorm groups: the means over the
    /// processes are those over the batch, of the loss's gradients as of the running statistics.
    fn average(&self, world: &World, measures: &Measures) -> Result<(), WorldError> {
        let gradients = self.query.tensors().parameters().map(Tensor::grad).filter(Tensor::defined);
        let statistics = [&self.query, &self.key].into_iter().flat_map(|encoder| encoder.tensors().buffers());
        let statistics = statistics.map(Tensor::shallow_clone);
        world.average(&gradients.chain(statistics).chain(measures.means()).collect::<Vec<_>>())
    }

    /// Loss of queries and keys of the same images, a scalar to call `backward` on, and what is
    /// worth knowing about it.
    fn contrast(&self, query: &Embedding, key: &Embedding, loss_lambda: f64) -> (Tensor, Measures) {
        let ContrastOptions { temperature, loss_chunk: chunk, products, .. } = self.options;
        let options = LossOptions { temperature, chunk, products };
        let global = info_nce(&query.global, &key.global, self.global_queue.vectors(), &options);
        let measures = Measures::global(query, &global);
        let (Some(query), Some(key), Some(queue)) = (&query.dense, &key.dense, &self.dense_queue) else {
            return (global.loss, measures);
        };
        let matches = tch::no_grad(|| match_cells(query, key)); // [N, L]
        let positives = key.cells.gather(2, &matches.unsqueeze(1).expand_as(&query.cells), false); // [N, D, L]
        let dense = info_nce(&rows(&query.cells), &rows(&positives), queue.vectors(), &options);
        let loss = (1.0 - loss_lambda) * global.loss + loss_lambda * &dense.loss;
        let measures = measures.with_dense(&loss, &dense, query, matches);
        (loss, measures)
    }

    /// Puts the keys of a batch into the queues: after the loss, so that no key is its own
    /// negative.
    ///
    /// # Errors
    /// If the batch does not divide the queue.
    pub fn enqueue(&mut self, keys: &NewKeys) -> Result<(), QueueError> {
        self.global_queue.push(&keys.global)?;
        match (&mut self.dense_queue, &keys.dense) {
            (Some(queue), Some(dense)) => queue.push(dense),
            _ => Ok(()),
        }
    }

    /// key ← m·key + (1 − m)·query, parameters only (arXiv 1911.05722, equation 2).
    fn update_momentum_encoder(&self) -> Result<(), NativeError> {
        let list = |encoder: &Encoder| encoder.tensors().parameters().map(Tensor::shallow_clone).collect::<Vec<_>>();
        native::lerp(&list(&self.key), &list(&self.query), 1.0 - self.options.momentum)
    }

    /// Keys of this process's images, in their order. The images of the batch go through the
    /// encoders of all processes in another one (shuffle BN, arXiv 1911.05722, section 3.3).
    fn embed_keys(&self, step: &Step<'_>) -> Result<Embedding, WorldError> {
        let shuffled = step.shuffle.map(|order| step.world.reorder(step.view_k, order)).transpose()?;
        let views = shuffled.as_ref().unwrap_or(step.view_k).chunk(step.parts, 0);
        let embed = |(index, view)| self.embed(&self.key, view, step, BatchPart { index, count: step.parts });
        let embeddings = (0..).zip(&views).map(embed).collect::<Result<Vec<_>, _>>()?;
        let embedding = Embedding::cat(embeddings);
        match step.shuffle {
            Some(order) => {
                let back = inverse(order);
                embedding.try_map(|x| step.world.reorder(x, &back))
            }
            None => Ok(embedding),
        }
    }

    fn embed(
        &self,
        encoder: &Encoder,
        views: &Tensor,
        step: &Step<'_>,
        part: BatchPart,
    ) -> Result<Embedding, NativeError> {
        let splits = self.options.bn_splits / step.world.size() as i64 / part.count;
        let statistics = Statistics::Batch { splits, part };
        match self.options.products {
            Kind::BFloat16 => native::autocast_bf16(views.device(), || encoder.embed(views, statistics)),
            _ => Ok(encoder.embed(views, statistics)),
        }
    }
}

/// For each query cell, the key cell of the same image whose backbone feature has the largest
/// cosine similarity (arXiv 2011.09157, equation 3): `[N, L]` int64.
fn match_cells(query: &DenseEmbedding, key: &DenseEmbedding) -> Tensor {
    let similarity = query.backbone.transpose(1, 2).bmm(&key.backbone); // [N, L, L]
    similarity.argmax(2, false) // [N, L]
}

/// The permutation that undoes one.
fn inverse(order: &[i64]) -> Vec<i64> {
    let mut inverse = vec![0; order.len()];
    for (place, &row) in (0..).zip(order) {
        inverse[row as usize] = place;
    }
    inverse
}

/// `[N, D, L]` → `[N·L, D]`.
fn rows(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(0, 1)
}

#[cfg(test)]
mod tests {
    use densecl_models::resnet::Architecture;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::network::normalize;

    fn model(bn_splits: i64, dense: bool) -> DenseCl {
        let options = ContrastOptions {
            queue_length: 32,
            temperature: 0.2,
            momentum: 0.9,
            bn_splits,
            loss_chunk: 10,
            products: Kind::Double,
        };
        model_with(options, dense, Kind::Double)
    }

    /// Uniform numbers within ±`bound`, the same for each seed. libtorch's generator cannot give them: other
    /// tests draw from it meanwhile.
    fn uniform(rng: &mut ChaCha8Rng, size: &[i64], bound: f64) -> Tensor {
        let values: Vec<f64> = (0..size.iter().product()).map(|_| rng.random_range(-bound..bound)).collect();
        Tensor::from_slice(&values).view(size)
    }

    /// Views `[N, 3, S, S]` of query and key.
    fn views(n: i64, side_px: i64) -> [Tensor; 2] {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        [(); 2].map(|()| uniform(&mut rng, &[n, 3, side_px, side_px], 2.0))
    }

    /// A model with the same weights and queues every time.
    fn model_with(options: ContrastOptions, dense: bool, kind: Kind) -> DenseCl {
        let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width: 4, dim: 16, dense };
        let mut model = DenseCl::new(spec, options, kind, Device::Cpu);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        tch::no_grad(|| {
            for (query, key) in model.query.tensors().parameters().zip(model.key.tensors().parameters()) {
                let size = query.size();
                // Kaiming-uniform weights; BatchNorm's stay as they are.
                if size.len() > 1 {
                    let fan_in: i64 = size[1..].iter().product();
                    query.shallow_clone().copy_(&uniform(&mut rng, &size, (6.0 / fan_in as f64).sqrt()));
                } else if query.double_value(&[0]) < 1.0 {
                    let _ = query.shallow_clone().zero_();
                }
                key.shallow_clone().copy_(query);
            }
        });
        for queue in [Some(&mut model.global_queue), model.dense_queue.as_mut()].into_iter().flatten() {
            queue.load(&normalize(&uniform(&mut rng, &[options.queue_length, 16], 1.0)), 0).unwrap();
        }
        model
    }

    fn step<'a>(world: &'a World, view_q: &'a Tensor, view_k: &'a Tensor, shuffle: Option<&'a [i64]>) -> Step<'a> {
        Step { world, view_q, view_k, shuffle, loss_lambda: 0.5, parts: 1 }
    }

    #[test]
    fn a_shuffle_within_one_group_changes_nothing() {
        let [q, k] = views(4, 64);
        let shuffle = [2, 0, 3, 1];
        let world = World::alone();
        let loss = |splits, shuffle| {
            let (measures, _) = model(splits, true).forward_backward(&step(&world, &q, &k, shuffle)).unwrap();
            measures.loss.double_value(&[])
        };
        assert!((loss(1, None) - loss(1, Some(&shuffle))).abs() < 1e-9);
        assert!((loss(2, None) - loss(2, Some(&shuffle))).abs() > 1e-6, "with two groups it does");
    }

    #[test]
    fn equal_views_match_cell_by_cell() {
        let [view, _] = views(2, 96);
        let (measures, _) = model(1, true).forward_backward(&step(&World::alone(), &view, &view, None)).unwrap();
        let dense = measures.dense.unwrap();
        let identity = Tensor::arange(9, (Kind::Int64, Device::Cpu)).expand_as(&dense.matches);
        assert_eq!(dense.matches, identity);
        assert!((dense.same_cell.double_value(&[]) - 100.0).abs() < 1e-5);
    }

    #[test]
    fn the_key_encoder_is_a_moving_average_without_gradient() {
        let mut model = model(1, false);
        let first = |e: &Encoder| e.tensors().parameters().next().unwrap().copy();
        tch::no_grad(|| {
            let _ = model.query.tensors().parameters().next().unwrap().shallow_clone().g_add_scalar_(1.0);
        });
        let (before, query) = (first(&model.key), first(&model.query));
        let [view, _] = views(2, 64);
        let (measures, keys) = model.forward_backward(&step(&World::alone(), &view, &view, None)).unwrap();
        let expected = &before * 0.9 + query * 0.1;
        assert!((first(&model.key) - expected).abs().max().double_value(&[]) < 1e-12);
        assert!(model.key.tensors().parameters().all(|p| !p.grad().defined()));
        assert!(model.query.tensors().parameters().all(|p| p.grad().defined()));
        assert!(measures.dense.is_none() && keys.dense.is_none() && model.dense_queue.is_none());
    }

    /// Gradients, matches, running statistics and keys of a batch do not depend on the parts it
    /// goes through the encoders in.
    #[test]
    fn parts_of_a_batch_are_the_batch() {
        let [q, k] = views(8, 64);
        let shuffle = [5, 0, 7, 2, 1, 6, 3, 4];
        let world = World::alone();
        let run = |parts| {
            let mut model = model(4, true);
            let (measures, keys) =
                model.forward_backward(&Step { parts, ..step(&world, &q, &k, Some(&shuffle)) }).unwrap();
            model.enqueue(&keys).unwrap();
            let mut found = vec![measures.loss, measures.dense.unwrap().matches.to_kind(Kind::Double)];
            found.push(model.global_queue.vectors().copy());
            found.push(model.dense_queue.as_ref().unwrap().vectors().copy());
            found.extend(model.query.tensors().parameters().map(Tensor::grad));
            found.extend(
                [&model.query, &model.key].into_iter().flat_map(|e| e.tensors().iter().map(|(_, _, t)| t.copy())),
            );
            found
        };
        let (whole, parts) = (run(1), run(4));
        assert_eq!(whole.len(), parts.len());
        for (a, b) in whole.iter().zip(&parts) {
            assert!((a - b).abs().max().double_value(&[]) < 1e-9);
        }
    }

    #[test]
    fn memory_order_changes_no_value_and_bfloat16_little() {
        let [q, k] = views(4, 64);
        let run = |channels_last: bool| {
            let mut model = model(2, true);
            if channels_last {
                model.query.channels_last();
                model.key.channels_last();
            }
            let (measures, _) = model.forward_backward(&step(&World::alone(), &q, &k, None)).unwrap();
            (measures.loss.double_value(&[]), model.query.tensors().parameters().next().unwrap().grad())
        };
        let ((loss, gradient), (other_loss, other_gradient)) = (run(false), run(true));
        assert!((loss - other_loss).abs() < 1e-9);
        assert!((gradient - other_gradient).abs().max().double_value(&[]) < 1e-9);

        let in_kind = |products| {
            let options = ContrastOptions { products, ..model(2, true).options() };
            let mut model = model_with(options, true, Kind::Float);
            let [q, k] = [&q, &k].map(|view| view.to_kind(Kind::Float));
            let (measures, _) = model.forward_backward(&step(&World::alone(), &q, &k, None)).unwrap();
            assert!(model.query.tensors().parameters().all(|p| p.grad().kind() == Kind::Float));
            measures.loss.double_value(&[])
        };
        let (float32, bfloat16) = (in_kind(Kind::Float), in_kind(Kind::BFloat16));
        assert!((float32 - bfloat16).abs() < 0.03 * float32 && float32.to_bits() != bfloat16.to_bits());
    }
}
