//! InfoNCE against a queue of negatives, without ever holding all logits.
//!
//! The logits of a DenseCL step at the paper's size are `[12 544, 65 536]`: 3.3 GB in float32, several
//! times over with what a graph keeps for its backward pass. Here the queue is gone through in
//! chunks with a running log-sum-exp, and the gradient, which has a closed form, is summed on the
//! way; extra memory is a few times `[M, chunk]`, whatever the length of the queue. The idea of
//! rescaling running sums is that of Milakov and Gimelshein (arXiv 1805.02867).

use tch::{Kind, Tensor};

/// Options of the loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossOptions {
    /// τ.
    pub temperature: f64,
    /// Negatives that are looked at together.
    pub chunk: i64,
    /// Type of the matrix products; sums are at least float32.
    pub products: Kind,
}

/// The loss of a batch of queries.
#[derive(Debug)]
pub struct InfoNce {
    /// Mean over the queries, a scalar; its gradient flows to the queries.
    pub loss: Tensor,
    /// Share of queries nearer to their positive than to every negative, in percent; a scalar.
    pub top1: Tensor,
}

/// Cross entropy of telling the positive from the negatives by cosine over the temperature
/// (arXiv 1911.05722, equation 1; arXiv 2011.09157, equations 1 and 2).
///
/// `query` and `positive` are `[M, D]`, `negatives` `[K, D]`, all of unit length. Only `query` gets
/// a gradient: (Σ pⱼ·nⱼ + p₊·k₊ − k₊) / (τ·M), with p the softmax of its logits.
pub fn info_nce(query: &Tensor, positive: &Tensor, negatives: &Tensor, options: &LossOptions) -> InfoNce {
    let (value, gradient, top1) = tch::no_grad(|| in_chunks(query, positive, negatives, options));
    // A function that is linear in the query, with this value and this gradient.
    let linear = (query * gradient).sum(query.kind());
    let loss = &linear + (value - linear.detach());
    InfoNce { loss, top1 }
}

/// Mean loss, its gradient by the query `[M, D]`, and the top-1 share in percent.
fn in_chunks(query: &Tensor, positive: &Tensor, negatives: &Tensor, options: &LossOptions) -> (Tensor, Tensor, Tensor) {
    let (kind, products) = (query.kind(), options.products);
    let scaled = query / options.temperature; // [M, D]
    let of_positive = (&scaled * positive).sum_dim_intlist([1].as_slice(), true, kind); // [M, 1]
    let scaled = scaled.to_kind(products);

    // Running over the chunks: the largest logit, Σ exp(logit − peak) and Σ exp(logit − peak)·key.
    // The peak is rounded as the logits are, so that both are shifted by the same number.
    let mut peak = of_positive.to_kind(products).to_kind(kind); // [M, 1]
    let mut sum = (&of_positive - &peak).exp(); // [M, 1]
    let mut keys = positive * &sum; // [M, D]
    let mut hardest = of_positive.full_like(f64::NEG_INFINITY); // [M, 1]
    for chunk in negatives.split(options.chunk, 0) {
        let chunk = chunk.to_kind(products); // [c, D]
        let mut weights = scaled.matmul(&chunk.transpose(0, 1)); // [M, c], logits until shifted
        let largest = weights.amax([1].as_slice(), true).to_kind(kind); // [M, 1]
        hardest = hardest.maximum(&largest);
        let higher = peak.maximum(&largest); // [M, 1]
        let shrink = (peak - &higher).exp(); // [M, 1]
        weights -= higher.to_kind(products);
        let weights = weights.exp_(); // [M, c]
        sum = sum * &shrink + weights.sum_dim_intlist([1].as_slice(), true, kind);
        keys = keys * &shrink + weights.matmul(&chunk).to_kind(kind);
        peak = higher;
    }
    let value = (peak + sum.log() - &of_positive).mean(kind);
    let gradient = (keys / sum - positive) / (options.temperature * query.size()[0] as f64); // [M, D]
    let top1 = of_positive.gt_tensor(&hardest).to_kind(Kind::Float).mean(Kind::Float) * 100.0;
    (value, gradient, top1)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Reduction};

    use super::*;
    use crate::network::normalize;

    fn options(temperature: f64, chunk: i64) -> LossOptions {
        LossOptions { temperature, chunk, products: Kind::Double }
    }

    #[test]
    fn agrees_with_the_formula() {
        let query = Tensor::from_slice2(&[[1.0, 0.0], [0.0, 1.0]]);
        let positive = Tensor::from_slice2(&[[0.8, 0.6], [1.0, 0.0]]);
        let negatives = Tensor::from_slice2(&[[0.0, 1.0], [0.6, 0.8], [-1.0, 0.0]]);
        let InfoNce { loss, top1 } = info_nce(&query, &positive, &negatives, &options(0.5, 2));
        let row = |positive: f64, negatives: [f64; 3]| {
            let sum: f64 = negatives.iter().chain([&positive]).map(|s| (s / 0.5).exp()).sum();
            sum.ln() - positive / 0.5
        };
        let expected = f64::midpoint(row(0.8, [0.0, 0.6, -1.0]), row(0.0, [1.0, 0.8, 0.0]));
        assert!((loss.double_value(&[]) - expected).abs() < 1e-12);
        assert!((top1.double_value(&[]) - 50.0).abs() < 1e-6, "the first query is told apart, the second not");
    }

    fn unit(rows: i64) -> Tensor {
        normalize(&Tensor::randn([rows, 16], (Kind::Double, Device::Cpu)))
    }

    /// Loss and gradient as libtorch's own cross entropy and autograd give them.
    fn by_autograd(query: &Tensor, positive: &Tensor, negatives: &Tensor, temperature: f64) -> (f64, Tensor) {
        let query = query.detach().set_requires_grad(true);
        let of_positive = (&query * positive).sum_dim_intlist([1].as_slice(), true, Kind::Double);
        let logits = Tensor::cat(&[of_positive, query.matmul(&negatives.transpose(0, 1))], 1) / temperature;
        let target = Tensor::zeros([logits.size()[0]], (Kind::Int64, Device::Cpu));
        let loss = logits.cross_entropy_loss(&target, None::<Tensor>, Reduction::Mean, -100, 0.0);
        loss.backward();
        (loss.double_value(&[]), query.grad())
    }

    #[test]
    fn value_and_gradient_are_those_of_the_whole_softmax_whatever_the_chunk() {
        tch::manual_seed(5);
        let (query, positive, negatives) = (unit(12), unit(12), unit(50));
        for temperature in [0.2, 0.01] {
            let (expected, gradient) = by_autograd(&query, &positive, &negatives, temperature);
            for chunk in [1, 7, 50, 4096] {
                let query = query.detach().set_requires_grad(true);
                let loss = info_nce(&query, &positive, &negatives, &options(temperature, chunk)).loss * 3.0;
                assert!((loss.double_value(&[]) / 3.0 - expected).abs() < 1e-12 * expected.abs().max(1.0));
                loss.backward();
                let error = (query.grad() - &gradient * 3.0).abs().max().double_value(&[]);
                assert!(error < 1e-12, "{chunk}: {error:e}");
            }
        }
    }

    #[test]
    fn bfloat16_products_stay_near() {
        tch::manual_seed(5);
        let (query, positive, negatives) = (unit(64), unit(64), unit(500));
        let (expected, gradient) = by_autograd(&query, &positive, &negatives, 0.2);
        let query = query.to_kind(Kind::Float).set_requires_grad(true);
        let options = LossOptions { temperature: 0.2, chunk: 64, products: Kind::BFloat16 };
        let [positive, negatives] = [positive, negatives].map(|x| x.to_kind(Kind::Float));
        let loss = info_nce(&query, &positive, &negatives, &options).loss;
        assert_eq!(loss.kind(), Kind::Float);
        assert!((loss.double_value(&[]) - expected).abs() < 0.01 * expected);
        loss.backward();
        let error = (query.grad().to_kind(Kind::Double) - &gradient).norm().double_value(&[]);
        assert!(error < 0.02 * gradient.norm().double_value(&[]), "{error:e}");
    }
}
