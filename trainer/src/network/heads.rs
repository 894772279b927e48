//! The projection heads: two layers with a ReLU between them, no BatchNorm.
//!
//! Source: Chen et al., arXiv 2003.04297 (global); Wang et al., arXiv 2011.09157, section 3.2
//! (dense).

use tch::Tensor;

use super::tensors::NamedTensors;

/// Layers `0` and `2` of a head, weights and biases.
#[derive(Debug)]
struct TwoLayers {
    weights: [Tensor; 2],
    biases: [Tensor; 2],
}

/// Projects a pooled feature: linear, ReLU, linear.
#[derive(Debug)]
pub(super) struct GlobalHead(TwoLayers);

/// Projects every cell of a map: 1×1 convolution, ReLU, 1×1 convolution.
#[derive(Debug)]
pub(super) struct DenseHead(TwoLayers);

impl GlobalHead {
    /// Weights Kaiming-normal over the fan-in, biases zero.
    pub(super) fn new(tensors: &mut NamedTensors, channels: i64, dim: i64) -> Self {
        let deviation = (2.0 / channels as f64).sqrt();
        let mut layer = |index: usize, output: i64| {
            let init = |tensor: &mut Tensor| drop(tensor.normal_(0.0, deviation));
            let weight = tensors.parameter(format!("global_head.{index}.weight"), &[output, channels], init);
            (weight, tensors.parameter(format!("global_head.{index}.bias"), &[output], |_| ()))
        };
        let ((first, first_bias), (second, second_bias)) = (layer(0, channels), layer(2, dim));
        Self(TwoLayers { weights: [first, second], biases: [first_bias, second_bias] })
    }

    /// `[N, C]` → `[N, D]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let TwoLayers { weights, biases } = &self.0;
        x.linear(&weights[0], Some(&biases[0])).relu().linear(&weights[1], Some(&biases[1]))
    }
}

impl DenseHead {
    /// PyTorch's default for convolutions: uniform within ±1/√fan-in, biases too.
    pub(super) fn new(tensors: &mut NamedTensors, channels: i64, dim: i64) -> Self {
        let bound = 1.0 / (channels as f64).sqrt();
        let mut layer = |index: usize, output: i64| {
            let init = |tensor: &mut Tensor| drop(tensor.uniform_(-bound, bound));
            let weight = tensors.parameter(format!("dense_head.{index}.weight"), &[output, channels, 1, 1], init);
            (weight, tensors.parameter(format!("dense_head.{index}.bias"), &[output], init))
        };
        let ((first, first_bias), (second, second_bias)) = (layer(0, channels), layer(2, dim));
        Self(TwoLayers { weights: [first, second], biases: [first_bias, second_bias] })
    }

    /// `[N, C, H, W]` → `[N, D, H, W]`.
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let TwoLayers { weights, biases } = &self.0;
        let project = |x: &Tensor, i: usize| x.conv2d(&weights[i], Some(&biases[i]), [1, 1], [0, 0], [1, 1], 1);
        project(&project(x, 0).relu(), 1)
    }
}
