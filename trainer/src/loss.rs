//! InfoNCE against a queue of negatives.

use tch::{Kind, Reduction, Tensor};

/// The loss of a batch of queries.
#[derive(Debug)]
pub struct InfoNce {
    /// Mean over the queries, a scalar.
    pub loss: Tensor,
    /// Share of queries nearer to their positive than to every negative, in percent; a scalar.
    pub top1: Tensor,
}

/// Cross entropy of telling the positive from the negatives by cosine over `temperature`
/// (arXiv 1911.05722, equation 1; arXiv 2011.09157, equations 1 and 2).
///
/// `query` and `positive` are `[M, D]`, `negatives` `[K, D]`, all of unit length.
pub fn info_nce(query: &Tensor, positive: &Tensor, negatives: &Tensor, temperature: f64) -> InfoNce {
    let of_positive = (query * positive).sum_dim_intlist([1].as_slice(), true, query.kind()); // [M, 1]
    let of_negatives = query.matmul(&negatives.transpose(0, 1)); // [M, K]
    let logits = Tensor::cat(&[&of_positive, &of_negatives], 1) / temperature; // [M, 1 + K]
    let target = Tensor::zeros([logits.size()[0]], (Kind::Int64, logits.device())); // [M]
    let loss = logits.cross_entropy_loss(&target, None::<Tensor>, Reduction::Mean, -100, 0.0);
    let (hardest, _) = of_negatives.detach().max_dim(1, true); // [M, 1]
    let top1 = of_positive.detach().gt_tensor(&hardest).to_kind(Kind::Float).mean(Kind::Float) * 100.0;
    InfoNce { loss, top1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_formula() {
        let query = Tensor::from_slice2(&[[1.0, 0.0], [0.0, 1.0]]);
        let positive = Tensor::from_slice2(&[[0.8, 0.6], [1.0, 0.0]]);
        let negatives = Tensor::from_slice2(&[[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]);
        let InfoNce { loss, top1 } = info_nce(&query, &positive, &negatives, 0.5);
        let row = |positive: f64, negatives: [f64; 3]| {
            let sum: f64 = negatives.iter().chain([&positive]).map(|s| (s / 0.5).exp()).sum();
            sum.ln() - positive / 0.5
        };
        let expected = f64::midpoint(row(0.8, [0.0, 0.6, -1.0]), row(0.0, [1.0, 0.8, 0.0]));
        assert!((loss.double_value(&[]) - expected).abs() < 1e-12);
        assert!((top1.double_value(&[]) - 50.0).abs() < 1e-6, "the first query is told apart, the second not");
    }
}
