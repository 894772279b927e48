//! Measures of a training step: losses, shares and standard deviations.

use tch::{Kind, Tensor};

use crate::loss::InfoNce;
use crate::network::{DenseEmbedding, Embedding, normalize};

/// Measures of a step; tensors without gradients, on the training device.
#[derive(Debug)]
pub struct Measures {
    /// (1 − λ)·global + λ·dense, a scalar.
    pub loss: Tensor,
    /// InfoNCE of the global projections, a scalar.
    pub loss_global: Tensor,
    /// Share of queries whose key is nearer than all negatives, in percent.
    pub global_top1: Tensor,
    /// Standard deviation of the unit global projections over the batch, mean over channels;
    /// 1/√D when they spread evenly, 0 when they have collapsed.
    pub embedding_std: Tensor,
    /// Standard deviation of the backbone's pooled features at unit length.
    pub feature_std: Tensor,
    /// Measures of the cells; `None` for MoCo-v2.
    pub dense: Option<DenseMeasures>,
}

/// Measures of the cells.
#[derive(Debug)]
pub struct DenseMeasures {
    /// InfoNCE of the cells, a scalar.
    pub loss: Tensor,
    /// Share of cells whose key is nearer than all negatives, in percent.
    pub top1: Tensor,
    /// The key cell that each query cell was matched with, `[N, L]` int64.
    pub matches: Tensor,
    /// Share of cells matched with the cell at the same place of the other view, in percent.
    pub same_cell: Tensor,
    /// Mean cosine similarity of the projections of the same cell of different images. Near 1,
    /// the dense head encodes positions and not their content.
    pub place_similarity: Tensor,
}

impl Measures {
    /// Measures of MoCo-v2's loss.
    pub(crate) fn global(query: &Embedding, global: &InfoNce) -> Self {
        let spread = |x: &Tensor| x.std_dim([0].as_slice(), false, false).mean(x.kind());
        Self {
            loss: global.loss.detach(),
            loss_global: global.loss.detach(),
            global_top1: global.top1.shallow_clone(),
            embedding_std: spread(&query.global.detach()),
            feature_std: spread(&normalize(&query.pooled_backbone)),
            dense: None,
        }
    }

    /// Adds the measures of the cells.
    #[must_use]
    pub(crate) fn with_dense(self, loss: &Tensor, dense: &InfoNce, query: &DenseEmbedding, matches: Tensor) -> Self {
        let cells = Tensor::arange(matches.size()[1], (Kind::Int64, matches.device()));
        let same_cell = matches.eq_tensor(&cells).to_kind(Kind::Float).mean(Kind::Float) * 100.0;
        let place_similarity = place_similarity(&query.cells.detach());
        let (loss_dense, top1) = (dense.loss.detach(), dense.top1.shallow_clone());
        let dense = DenseMeasures { loss: loss_dense, top1, matches, same_cell, place_similarity };
        Self { loss: loss.detach(), dense: Some(dense), ..self }
    }

    /// The measures that are means over the images of a batch, so that they can be averaged over processes.
    pub(crate) fn means(&self) -> Vec<Tensor> {
        let Self { loss, loss_global, global_top1, embedding_std, feature_std, dense } = self;
        let mut means = vec![loss, loss_global, global_top1, embedding_std, feature_std];
        if let Some(DenseMeasures { loss, top1, matches: _, same_cell, place_similarity }) = dense {
            means.extend([loss, top1, same_cell, place_similarity]);
        }
        means.into_iter().map(Tensor::shallow_clone).collect()
    }

    /// Mean over the equal parts of a batch.
    pub(crate) fn mean(parts: &[Self]) -> Self {
        let mean = |field: &dyn Fn(&Self) -> &Tensor| mean(parts.iter().map(field));
        let dense: Vec<_> = parts.iter().filter_map(|part| part.dense.as_ref()).collect();
        Self {
            loss: mean(&|part| &part.loss),
            loss_global: mean(&|part| &part.loss_global),
            global_top1: mean(&|part| &part.global_top1),
            embedding_std: mean(&|part| &part.embedding_std),
            feature_std: mean(&|part| &part.feature_std),
            dense: (!dense.is_empty()).then(|| DenseMeasures::mean(&dense)),
        }
    }
}

impl DenseMeasures {
    fn mean(parts: &[&Self]) -> Self {
        let mean = |field: &dyn Fn(&Self) -> &Tensor| mean(parts.iter().map(|part| field(part)));
        let matches: Vec<_> = parts.iter().map(|part| &part.matches).collect();
        Self {
            loss: mean(&|part| &part.loss),
            top1: mean(&|part| &part.top1),
            matches: Tensor::cat(&matches, 0),
            same_cell: mean(&|part| &part.same_cell),
            place_similarity: mean(&|part| &part.place_similarity),
        }
    }
}

fn mean<'a>(values: impl Iterator<Item = &'a Tensor>) -> Tensor {
    let values: Vec<_> = values.collect();
    Tensor::stack(&values, 0).mean(values[0].kind())
}

/// Mean over the cells of the mean cosine similarity between the N different images at that cell;
/// `cells` are unit vectors, `[N, D, L]`.
fn place_similarity(cells: &Tensor) -> Tensor {
    let n = cells.size()[0] as f64;
    let kind = cells.kind();
    let sum = cells.sum_dim_intlist([0].as_slice(), false, kind); // [D, L]
    // ‖Σ x‖² counts every image with itself once, at a similarity of 1.
    let squared = sum.square().sum_dim_intlist([0].as_slice(), false, kind); // [L]
    ((squared - n) / (n * (n - 1.0)).max(1.0)).mean(kind) // []
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn place_similarity_is_the_mean_cosine_between_images() {
        tch::manual_seed(3);
        let cells = normalize(&Tensor::randn([5, 8, 4], (Kind::Double, Device::Cpu)));
        let (mut sum, mut count) = (0.0, 0.0);
        for (a, b) in (0..5).flat_map(|a| (0..5).map(move |b| (a, b))).filter(|(a, b)| a != b) {
            sum += (cells.get(a) * cells.get(b)).sum(Kind::Double).double_value(&[]) / 4.0;
            count += 1.0;
        }
        assert!((place_similarity(&cells).double_value(&[]) - sum / count).abs() < 1e-12);
        let same = cells.narrow(0, 0, 1).expand([5, 8, 4], false);
        assert!((place_similarity(&same).double_value(&[]) - 1.0).abs() < 1e-12);
    }
}
