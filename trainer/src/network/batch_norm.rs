//! BatchNorm that can treat a batch as several smaller ones.

use densecl_models::resnet::BATCH_NORM_EPSILON;
use tch::Tensor;

use super::tensors::NamedTensors;

/// Share of a new batch in the running statistics, as in PyTorch.
const MOMENTUM: f64 = 0.1;

/// One of the equal parts of a batch that pass through a network one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPart {
    /// Counted from 0.
    pub index: i64,
    /// Number of parts.
    pub count: i64,
}

impl BatchPart {
    /// The batch in one piece.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Share of this part in the running statistics, such that after the last part every part
    /// has moved them by the same share, all together by [`MOMENTUM`].
    fn momentum(self) -> f64 {
        let share = MOMENTUM / self.count as f64;
        share / (1.0 - share * (self.count - 1 - self.index) as f64)
    }
}

/// Statistics of a forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// Statistics of the batch, in `splits` groups of consecutive images; the running statistics
    /// then move towards the mean over the groups.
    ///
    /// One group on one device lets a contrastive network cheat: the keys leak to the queries
    /// through the statistics. Several groups and a shuffle of the keys between them are what
    /// several devices would do (He et al., arXiv 1911.05722, section 3.3).
    Batch {
        /// Number of groups; it divides the batch.
        splits: i64,
        /// Position of this batch in a larger one.
        part: BatchPart,
    },
    /// Running statistics, which stay unchanged.
    Running,
}

/// Normalises each channel of `[N, C, H, W]`.
#[derive(Debug)]
pub(super) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
}

impl BatchNorm {
    pub(super) fn new(tensors: &mut NamedTensors, name: &str, channels: i64) -> Self {
        let one = |tensor: &mut Tensor| drop(tensor.fill_(1.0));
        let zero = |_: &mut Tensor| ();
        Self {
            weight: tensors.parameter(format!("{name}.weight"), &[channels], one),
            bias: tensors.parameter(format!("{name}.bias"), &[channels], zero),
            running_mean: tensors.buffer(format!("{name}.running_mean"), &[channels], zero),
            running_var: tensors.buffer(format!("{name}.running_var"), &[channels], one),
        }
    }

    /// `[N, C, H, W]` → `[N, C, H, W]`.
    pub(super) fn forward(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        match statistics {
            Statistics::Running => self.normalize(x, &self.running_mean, &self.running_var, None),
            Statistics::Batch { splits: 1, part } => {
                self.normalize(x, &self.running_mean, &self.running_var, Some(part.momentum()))
            }
            Statistics::Batch { splits, part } => self.forward_in_groups(x, splits, part.momentum()),
        }
    }

    fn forward_in_groups(&self, x: &Tensor, splits: i64, momentum: f64) -> Tensor {
        let groups = x.chunk(splits, 0);
        // With a momentum of 1, batch_norm leaves each group's own statistics in its row.
        let size = [splits, self.running_mean.size()[0]];
        let rows = || Tensor::zeros(size, (self.running_mean.kind(), x.device())); // [G, C]
        let (means, vars) = (rows(), rows());
        let normalized: Vec<Tensor> = (0..)
            .zip(&groups)
            .map(|(i, group)| self.normalize(group, &means.get(i), &vars.get(i), Some(1.0)))
            .collect();
        tch::no_grad(|| {
            let towards = |running: &Tensor, rows: &Tensor| {
                let mean = rows.mean_dim(0, false, rows.kind()); // [C]
                drop(running.shallow_clone().lerp_(&mean, momentum));
            };
            towards(&self.running_mean, &means);
            towards(&self.running_var, &vars);
        });
        Tensor::cat(&normalized, 0)
    }

    /// Normalises with the statistics of `x`, which then move `mean` and `var` by the share `momentum`;
    /// without a momentum, with `mean` and `var` themselves.
    fn normalize(&self, x: &Tensor, mean: &Tensor, var: &Tensor, momentum: Option<f64>) -> Tensor {
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            Some(mean),
            Some(var),
            momentum.is_some(),
            momentum.unwrap_or(MOMENTUM),
            BATCH_NORM_EPSILON,
            x.device().is_cuda(),
        )
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn norm() -> (NamedTensors, BatchNorm) {
        let mut tensors = NamedTensors::new(Kind::Double, Device::Cpu);
        let norm = BatchNorm::new(&mut tensors, "bn", 3);
        (tensors, norm)
    }

    fn batch(splits: i64) -> Statistics {
        Statistics::Batch { splits, part: BatchPart::WHOLE }
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn groups_are_normalised_as_batches_of_their_own() {
        tch::manual_seed(1);
        let x = Tensor::randn([4, 3, 5, 5], (Kind::Double, Device::Cpu)) * 2.0 + 1.0;
        let (_, whole) = norm();
        let (_, split) = norm();
        let together = split.forward(&x, batch(2));
        let apart: Vec<_> = x.chunk(2, 0).iter().map(|half| whole.forward(half, batch(1))).collect();
        assert!(difference(&together, &Tensor::cat(&apart, 0)) < 1e-12);
        assert!(difference(&together, &whole.forward(&x, batch(1))) > 1e-3);
    }

    #[test]
    fn running_statistics_move_by_the_mean_over_groups() {
        let (_, norm) = norm();
        let x = Tensor::cat(
            &[
                Tensor::zeros([1, 3, 2, 2], (Kind::Double, Device::Cpu)),
                Tensor::full([1, 3, 2, 2], 4.0, (Kind::Double, Device::Cpu)),
            ],
            0,
        );
        let _ = norm.forward(&x, batch(2));
        // Group means 0 and 4, group variances 0: a tenth of the way from (0, 1).
        assert!((norm.running_mean.double_value(&[0]) - 0.2).abs() < 1e-12);
        assert!((norm.running_var.double_value(&[0]) - 0.9).abs() < 1e-12);
        let before = norm.running_mean.copy();
        let _ = norm.forward(&x, Statistics::Running);
        assert!(difference(&before, &norm.running_mean) < 1e-15);
    }

    #[test]
    fn parts_move_the_running_statistics_as_the_whole_would() {
        tch::manual_seed(2);
        let x = Tensor::randn([6, 3, 4, 4], (Kind::Double, Device::Cpu));
        let ((_, whole), (_, parts)) = (norm(), norm());
        let _ = whole.forward(&x, batch(3));
        for (index, part) in (0..).zip(x.chunk(3, 0)) {
            let _ = parts.forward(&part, Statistics::Batch { splits: 1, part: BatchPart { index, count: 3 } });
        }
        assert!(difference(&whole.running_mean, &parts.running_mean) < 1e-12);
        assert!(difference(&whole.running_var, &parts.running_var) < 1e-12);
    }
}
