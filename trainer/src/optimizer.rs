//! Stochastic gradient descent with momentum, and the cosine schedule.

use tch::Tensor;

/// What gradient descent is told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdOptions {
    /// Share of the last update that goes on.
    pub momentum: f64,
    /// Decay of every parameter, BatchNorm and biases included.
    pub weight_decay: f64,
}

/// `v ← μ·v + g + w·θ`, `θ ← θ − lr·v`, as PyTorch's SGD.
#[derive(Debug)]
pub struct Sgd {
    options: SgdOptions,
    parameters: Vec<Tensor>,
    velocities: Vec<Tensor>,
}

impl Sgd {
    /// For these parameters, at rest.
    pub fn new<'a>(parameters: impl Iterator<Item = &'a Tensor>, options: SgdOptions) -> Self {
        let parameters: Vec<_> = parameters.map(Tensor::shallow_clone).collect();
        let velocities = parameters.iter().map(|p| p.detach().zeros_like()).collect();
        Self { options, parameters, velocities }
    }

    /// The momentum of each parameter, in the parameters' order.
    pub fn velocities(&self) -> &[Tensor] {
        &self.velocities
    }

    /// Moves every parameter against its gradient, which is left zero.
    pub fn step(&mut self, learning_rate: f64) {
        let SgdOptions { momentum, weight_decay } = self.options;
        tch::no_grad(|| {
            for (parameter, velocity) in self.parameters.iter_mut().zip(&mut self.velocities) {
                let gradient = parameter.grad();
                if !gradient.defined() {
                    continue;
                }
                let _ = velocity.g_mul_scalar_(momentum);
                *velocity += gradient;
                *velocity += &*parameter * weight_decay;
                *parameter -= &*velocity * learning_rate;
                parameter.zero_grad();
            }
        });
    }
}

/// Learning rate after a share `progress` in [0, 1] of the run: from `base` to 0 on half a cosine
/// (Loshchilov and Hutter, arXiv 1608.03983, equation 5, without restarts).
pub fn cosine(base: f64, progress: f64) -> f64 {
    base * 0.5 * (1.0 + (std::f64::consts::PI * progress.clamp(0.0, 1.0)).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_like_the_formula() {
        let parameter = Tensor::from_slice(&[2.0]).set_requires_grad(true);
        let mut sgd = Sgd::new([&parameter].into_iter(), SgdOptions { momentum: 0.9, weight_decay: 0.1 });
        let (mut value, mut velocity) = (2.0, 0.0);
        for _ in 0..3 {
            (&parameter * &parameter).sum(tch::Kind::Double).backward();
            sgd.step(0.05);
            velocity = 0.9 * velocity + 2.0 * value + 0.1 * value;
            value -= 0.05 * velocity;
            assert!((parameter.double_value(&[0]) - value).abs() < 1e-12);
        }
    }

    #[test]
    fn the_cosine_falls_from_the_base_to_nothing() {
        assert!((cosine(0.3, 0.0) - 0.3).abs() < 1e-15);
        assert!((cosine(0.3, 0.5) - 0.15).abs() < 1e-15);
        assert!(cosine(0.3, 1.0).abs() < 1e-15);
    }
}
