//! Stochastic gradient descent with momentum, LARS, and the learning rate's schedule.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::native::{self, NativeError, SgdStep};

/// Algorithm that turns a gradient into an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Momentum SGD, as the published runs.
    #[default]
    Sgd,
    /// Layer-wise rates, for batches of thousands (You et al., arXiv 1708.03888).
    Lars,
}

/// Options of the optimizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerOptions {
    /// SGD or LARS.
    pub algorithm: Algorithm,
    /// Share μ of the last update that is kept.
    pub momentum: f64,
    /// Decay of the parameters: of every one with SGD; with LARS of all but biases and BatchNorm's.
    pub weight_decay: f64,
    /// LARS's η.
    pub trust_coefficient: f64,
}

/// `v ← μ·v + g + w·θ`, `θ ← θ − lr·v`, as PyTorch's SGD; with LARS `g + w·θ` is scaled per tensor
/// before it enters `v`.
#[derive(Debug)]
pub struct Optimizer {
    options: OptimizerOptions,
    parameters: Vec<Tensor>,
    velocities: Vec<Tensor>,
}

impl Optimizer {
    /// An optimizer of these parameters, with zero velocities.
    pub fn new<'a>(parameters: impl Iterator<Item = &'a Tensor>, options: OptimizerOptions) -> Self {
        let parameters: Vec<_> = parameters.map(Tensor::shallow_clone).collect();
        // In the memory layout of the parameters.
        let velocities = parameters.iter().map(|p| p.detach().zeros_like()).collect();
        Self { options, parameters, velocities }
    }

    /// The momentum of each parameter, in the parameters' order.
    pub fn velocities(&self) -> &[Tensor] {
        &self.velocities
    }

    /// Updates every parameter that has a gradient, and clears the gradients.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn step(&mut self, learning_rate: f64) -> Result<(), NativeError> {
        let OptimizerOptions { algorithm, momentum, mut weight_decay, .. } = self.options;
        let (mut parameters, mut gradients, mut velocities) = (Vec::new(), Vec::new(), Vec::new());
        for (parameter, velocity) in self.parameters.iter().zip(&self.velocities) {
            let gradient = parameter.grad();
            if gradient.defined() {
                parameters.push(parameter.shallow_clone());
                gradients.push(gradient);
                velocities.push(velocity.shallow_clone());
            }
        }
        if algorithm == Algorithm::Lars {
            tch::no_grad(|| {
                for (parameter, gradient) in parameters.iter().zip(&mut gradients) {
                    *gradient = self.layer_wise(parameter, gradient);
                }
            });
            weight_decay = 0.0;
        }
        native::sgd(&parameters, &gradients, &velocities, SgdStep { learning_rate, momentum, weight_decay })?;
        native::forget_gradients(&self.parameters)
    }

    /// Computes `η·‖θ‖ / ‖g + w·θ‖ · (g + w·θ)`; leaves vectors, which are biases and BatchNorm's, unchanged.
    fn layer_wise(&self, parameter: &Tensor, gradient: &Tensor) -> Tensor {
        if parameter.dim() < 2 {
            return gradient.shallow_clone();
        }
        let decayed = gradient + parameter * self.options.weight_decay;
        let norm = |x: &Tensor| x.square().sum(Kind::Float).sqrt();
        let (of_parameter, of_update) = (norm(parameter), norm(&decayed));
        let ratio = &of_parameter * self.options.trust_coefficient / &of_update;
        let usable = of_parameter.gt(0.0).logical_and(&of_update.gt(0.0));
        let one = ratio.ones_like();
        decayed * ratio.where_self(&usable, &one).to_kind(gradient.kind())
    }
}

/// Learning rate of step `step` of `total`: rising in a line over the first `warmup` steps, then
/// from `base` to 0 on half a cosine (Loshchilov and Hutter, arXiv 1608.03983, equation 5,
/// without restarts; Goyal et al., arXiv 1706.02677, section 2.2).
pub fn learning_rate(base: f64, step: u64, warmup: u64, total: u64) -> f64 {
    if step < warmup {
        return base * (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (total - warmup).max(1) as f64;
    base * 0.5 * (1.0 + (PI * progress.clamp(0.0, 1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(algorithm: Algorithm) -> OptimizerOptions {
        OptimizerOptions { algorithm, momentum: 0.9, weight_decay: 0.1, trust_coefficient: 0.01 }
    }

    #[test]
    fn steps_like_the_formula() {
        let parameter = Tensor::from_slice(&[2.0]).set_requires_grad(true);
        let mut sgd = Optimizer::new([&parameter].into_iter(), options(Algorithm::Sgd));
        let (mut value, mut velocity) = (2.0, 0.0);
        for _ in 0..3 {
            (&parameter * &parameter).sum(Kind::Double).backward();
            sgd.step(0.05).unwrap();
            velocity = 0.9 * velocity + 2.0 * value + 0.1 * value;
            value -= 0.05 * velocity;
            assert!((parameter.double_value(&[0]) - value).abs() < 1e-12);
            assert!(!parameter.grad().defined());
        }
    }

    #[test]
    fn lars_moves_by_a_share_of_the_weights_and_leaves_vectors_alone() {
        let matrix = Tensor::from_slice2(&[[3.0, 4.0]]).set_requires_grad(true);
        let bias = Tensor::from_slice(&[1.0]).set_requires_grad(true);
        let mut lars = Optimizer::new([&matrix, &bias].into_iter(), options(Algorithm::Lars));
        ((&matrix * 1000.0).sum(Kind::Double) + bias.sum(Kind::Double)).backward();
        lars.step(1.0).unwrap();
        let moved = (&matrix - Tensor::from_slice2(&[[3.0, 4.0]])).norm().double_value(&[]);
        assert!((moved - 0.01 * 5.0).abs() < 1e-6, "{moved}");
        assert!(bias.double_value(&[0]).abs() < 1e-12, "the plain gradient, undecayed");
    }

    #[test]
    fn the_rate_rises_in_a_line_and_falls_on_a_cosine() {
        let rate = |step| learning_rate(0.3, step, 10, 110);
        assert!((rate(0) - 0.03).abs() < 1e-15 && (rate(9) - 0.3).abs() < 1e-15);
        assert!((rate(10) - 0.3).abs() < 1e-15 && (rate(60) - 0.15).abs() < 1e-15);
        assert!(rate(110).abs() < 1e-15);
        assert!((learning_rate(0.3, 5, 0, 10) - 0.15).abs() < 1e-15, "without warm-up");
    }
}
