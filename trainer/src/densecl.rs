//! The method, top to bottom: one DenseCL step, of which MoCo-v2's is a part.
//!
//! Source: Wang et al., arXiv 2011.09157, section 3; He et al., arXiv 1911.05722, algorithm 1;
//! Chen et al., arXiv 2003.04297. The golden files under `tests/golden/` state this step
//! independently.

use tch::{Device, Kind, Tensor};

use crate::loss::info_nce;
use crate::network::{DenseEmbedding, Encoder, EncoderSpec, Statistics};
use crate::queue::Queue;

/// What the loss is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContrastOptions {
    /// Vectors in each queue, K.
    pub queue_length: i64,
    /// τ in the InfoNCE loss.
    pub temperature: f64,
    /// Share of the key encoder that a step keeps, m.
    pub momentum: f64,
    /// Groups of images that BatchNorm treats as batches of their own.
    pub bn_splits: i64,
}

/// Query and key encoder with their queues of negatives.
#[derive(Debug)]
pub struct DenseCl {
    /// Trained by gradient descent.
    pub query: Encoder,
    /// Follows the query encoder; its BatchNorm buffers are its own.
    pub key: Encoder,
    /// Global keys of earlier batches.
    pub global_queue: Queue,
    /// One pooled dense key per image of earlier batches; `None` for MoCo-v2.
    pub dense_queue: Option<Queue>,
    options: ContrastOptions,
}

/// What a forward pass leaves behind.
#[derive(Debug)]
pub struct StepOutput {
    /// (1 − λ)·global + λ·dense, a scalar to call `backward` on.
    pub loss: Tensor,
    /// InfoNCE of the global projections, a scalar.
    pub loss_global: Tensor,
    /// InfoNCE of the cells, a scalar.
    pub loss_dense: Option<Tensor>,
    /// The key cell that each query cell was matched with, `[N, L]` int64.
    pub matches: Option<Tensor>,
    /// Share of queries whose key is nearer than all negatives, in percent.
    pub global_top1: Tensor,
    /// The same of the cells.
    pub dense_top1: Option<Tensor>,
    /// Standard deviation of the unit global projections over the batch, mean over channels;
    /// 1/√D when they spread evenly, 0 when they have collapsed.
    pub embedding_std: Tensor,
    keys: Keys,
}

/// What goes into the queues once the loss has been computed.
#[derive(Debug)]
struct Keys {
    global: Tensor,
    pooled: Option<Tensor>,
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

    /// Computes the loss of a batch: views `[N, 3, H, W]`, normalised.
    ///
    /// `shuffle` is a permutation of the batch, `[N]` int64, for the key encoder's BatchNorm
    /// groups; with one group it would change nothing. `loss_lambda` is the weight λ of the dense
    /// loss.
    pub fn forward(
        &mut self,
        view_q: &Tensor,
        view_k: &Tensor,
        shuffle: Option<&Tensor>,
        loss_lambda: f64,
    ) -> StepOutput {
        let statistics = Statistics::Batch { splits: self.options.bn_splits };
        let query = self.query.embed(view_q, statistics);
        let key = tch::no_grad(|| {
            self.follow();
            self.embed_shuffled(view_k, statistics, shuffle)
        });

        let temperature = self.options.temperature;
        let global = info_nce(&query.global, &key.global, self.global_queue.vectors(), temperature);
        let mut output = StepOutput {
            loss: global.loss.shallow_clone(),
            loss_global: global.loss,
            loss_dense: None,
            matches: None,
            global_top1: global.top1,
            dense_top1: None,
            embedding_std: query.global.detach().std_dim([0].as_slice(), false, false).mean(query.global.kind()),
            keys: Keys { global: key.global, pooled: None },
        };
        if let (Some(query), Some(key), Some(queue)) = (query.dense, key.dense, &self.dense_queue) {
            let matches = match_cells(&query, &key); // [N, L]
            let positives = key.cells.gather(2, &matches.unsqueeze(1).expand_as(&query.cells), false); // [N, D, L]
            let dense = info_nce(&rows(&query.cells), &rows(&positives), queue.vectors(), temperature);
            output.loss = (1.0 - loss_lambda) * &output.loss_global + loss_lambda * &dense.loss;
            output.loss_dense = Some(dense.loss);
            output.dense_top1 = Some(dense.top1);
            output.matches = Some(matches);
            output.keys.pooled = Some(key.pooled);
        }
        output
    }

    /// Puts the keys of a forward pass into the queues: after the loss, so that no key is its
    /// own negative.
    ///
    /// # Errors
    /// If the batch does not divide the queue.
    pub fn enqueue(&mut self, output: &StepOutput) -> Result<(), String> {
        self.global_queue.push(&output.keys.global)?;
        match (&mut self.dense_queue, &output.keys.pooled) {
            (Some(queue), Some(pooled)) => queue.push(pooled),
            _ => Ok(()),
        }
    }

    /// key ← m·key + (1 − m)·query, parameters only (arXiv 1911.05722, equation 2).
    fn follow(&self) {
        let m = self.options.momentum;
        for (key, query) in self.key.tensors().parameters().zip(self.query.tensors().parameters()) {
            let mut key = key.shallow_clone();
            let _ = key.g_mul_scalar_(m);
            key += query * (1.0 - m);
        }
    }

    fn embed_shuffled(
        &self,
        view: &Tensor,
        statistics: Statistics,
        shuffle: Option<&Tensor>,
    ) -> crate::network::Embedding {
        let Some(shuffle) = shuffle else { return self.key.embed(view, statistics) };
        let mut embedding = self.key.embed(&view.index_select(0, shuffle), statistics);
        let back = shuffle.argsort(0, false);
        let unshuffle = |x: &mut Tensor| *x = x.index_select(0, &back);
        unshuffle(&mut embedding.global);
        if let Some(dense) = &mut embedding.dense {
            unshuffle(&mut dense.cells);
            unshuffle(&mut dense.backbone);
            unshuffle(&mut dense.pooled);
        }
        embedding
    }
}

/// For each query cell, the key cell of the same image whose backbone feature has the largest
/// cosine similarity (arXiv 2011.09157, equation 3): `[N, L]` int64.
fn match_cells(query: &DenseEmbedding, key: &DenseEmbedding) -> Tensor {
    let similarity = query.backbone.transpose(1, 2).bmm(&key.backbone); // [N, L, L]
    similarity.argmax(2, false) // [N, L]
}

/// `[N, D, L]` → `[N·L, D]`.
fn rows(x: &Tensor) -> Tensor {
    x.transpose(1, 2).flatten(0, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use densecl_models::resnet::Architecture;

    const CPU: (Kind, Device) = (Kind::Double, Device::Cpu);

    fn model(bn_splits: i64, dense: bool) -> DenseCl {
        tch::manual_seed(7);
        let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width: 4, dim: 16, dense };
        let options = ContrastOptions { queue_length: 32, temperature: 0.2, momentum: 0.9, bn_splits };
        DenseCl::new(spec, options, Kind::Double, Device::Cpu)
    }

    #[test]
    fn a_shuffle_within_one_group_changes_nothing() {
        let views = [Tensor::randn([4, 3, 64, 64], CPU), Tensor::randn([4, 3, 64, 64], CPU)];
        let shuffle = Tensor::from_slice(&[2_i64, 0, 3, 1]);
        let loss = |shuffle| model(1, true).forward(&views[0], &views[1], shuffle, 0.5).loss.double_value(&[]);
        assert!((loss(None) - loss(Some(&shuffle))).abs() < 1e-9);
        let split = |shuffle| model(2, true).forward(&views[0], &views[1], shuffle, 0.5).loss.double_value(&[]);
        assert!((split(None) - split(Some(&shuffle))).abs() > 1e-6, "with two groups it does");
    }

    #[test]
    fn equal_views_match_cell_by_cell() {
        let view = Tensor::randn([2, 3, 96, 96], CPU);
        let matches = model(1, true).forward(&view, &view, None, 0.5).matches.unwrap();
        let identity = Tensor::arange(9, (Kind::Int64, Device::Cpu)).expand_as(&matches);
        assert_eq!(matches, identity);
    }

    #[test]
    fn the_key_encoder_follows_and_gets_no_gradient() {
        let mut model = model(1, false);
        let first = |e: &Encoder| e.tensors().parameters().next().unwrap().copy();
        tch::no_grad(|| {
            let _ = model.query.tensors().parameters().next().unwrap().shallow_clone().g_add_scalar_(1.0);
        });
        let (before, query) = (first(&model.key), first(&model.query));
        let view = Tensor::randn([2, 3, 64, 64], CPU);
        let output = model.forward(&view, &view, None, 0.5);
        output.loss.backward();
        let expected = &before * 0.9 + query * 0.1;
        assert!((first(&model.key) - expected).abs().max().double_value(&[]) < 1e-12);
        assert!(model.key.tensors().parameters().all(|p| !p.grad().defined()));
        assert!(model.query.tensors().parameters().all(|p| p.grad().defined()));
        assert!(output.loss_dense.is_none() && model.dense_queue.is_none());
    }
}
