//! Classification by the nearest neighbours of frozen features, with nothing trained.
//!
//! Source: Wu et al., arXiv 1805.01978, section 3.4: the `k` training images of the largest cosine
//! vote for their class with the weight `exp(cosine / temperature)`.

use tch::{Kind, Tensor};

use super::features::LabelledFeatures;
use super::metrics::ConfusionMatrix;

/// Test images that are compared with all training images at a time.
const CHUNK: i64 = 256;

/// Classifies `test` by its neighbours in `train`. Of classes with equal votes the first is taken.
pub(super) fn classify(train: &LabelledFeatures, test: &LabelledFeatures, k: i64, temperature: f64) -> ConfusionMatrix {
    let classes = train.classes as i64;
    let bank = unit_length(&train.features); // [N, C]
    let mut matrix = ConfusionMatrix::new(train.classes);
    for (queries, truth) in test.features.split(CHUNK, 0).iter().zip(test.labels.split(CHUNK, 0)) {
        let cosines = unit_length(queries).matmul(&bank.tr()); // [M, N]
        let (cosines, nearest) = cosines.topk(k, 1, true, true); // [M, k]
        let voters = train.labels.take(&nearest); // [M, k]
        // Relative to the nearest one, so that no power of a small temperature overflows.
        let weights = ((&cosines - cosines.narrow(1, 0, 1)) / temperature).exp(); // [M, k]
        let votes = Tensor::zeros([queries.size()[0], classes], (Kind::Float, queries.device())); // [M, K]
        let votes = votes.scatter_add(1, &voters, &weights); // [M, K]
        matrix.add(&truth, &votes.argmax(1, false));
    }
    matrix
}

/// Scales rows `[N, C]` to unit length.
fn unit_length(features: &Tensor) -> Tensor {
    features / features.norm_scalaropt_dim(2, [1].as_slice(), true).clamp_min(1e-12) // [N, C]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(rows: &[[f32; 2]], labels: &[i64]) -> LabelledFeatures {
        LabelledFeatures { features: Tensor::from_slice2(rows), labels: Tensor::from_slice(labels), classes: 2 }
    }

    #[test]
    fn near_neighbours_outvote_many_distant_ones() {
        let train = features(&[[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [-1.0, 0.2]], &[0, 1, 1, 1]);
        // Direction counts, not length.
        let test = features(&[[9.0, 0.9], [0.0, 0.3]], &[0, 1]);
        let by_weight = classify(&train, &test, 4, 0.07);
        assert!((by_weight.accuracy() - 1.0).abs() < 1e-12);
        // With a high temperature every neighbour counts the same, and class 1 has three of four.
        let by_number = classify(&train, &test, 4, 1e6);
        assert!((by_number.accuracy() - 0.5).abs() < 1e-12);
        let nearest_alone = classify(&train, &test, 1, 1e6);
        assert!((nearest_alone.accuracy() - 1.0).abs() < 1e-12);
    }
}
