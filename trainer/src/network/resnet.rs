//! ResNet backbones, named as torchvision names them.
//!
//! Source: He et al., arXiv 1512.03385, table 1; the stride sits on the 3×3 convolution of a
//! bottleneck, as in torchvision. `stem_width` scales every layer; 64 is the standard network.

use densecl_models::resnet::Architecture;
use tch::Tensor;

use super::batch_norm::{BatchNorm, Statistics};
use super::tensors::NamedTensors;

/// What a backbone computes of `[N, 3, H, W]`.
#[derive(Debug)]
pub struct FeatureMaps {
    /// `res2` to `res5`: `[N, C_i, H/s, W/s]` at strides 4, 8, 16 and 32.
    pub stages: [Tensor; 4],
}

/// A convolution without bias and the BatchNorm behind it.
#[derive(Debug)]
struct NormedConv {
    weight: Tensor,
    norm: BatchNorm,
    stride: i64,
}

/// Shape of a convolution: channels in and out, kernel, stride.
#[derive(Clone, Copy)]
struct ConvShape {
    input: i64,
    output: i64,
    kernel: i64,
    stride: i64,
}

impl NormedConv {
    fn new(tensors: &mut NamedTensors, conv: &str, norm: &str, shape: ConvShape) -> Self {
        let ConvShape { input, output, kernel, stride } = shape;
        // Kaiming-normal over the fan-in, gain for ReLU.
        let deviation = (2.0 / (input * kernel * kernel) as f64).sqrt();
        let init = |tensor: &mut Tensor| drop(tensor.normal_(0.0, deviation));
        let weight = tensors.parameter(format!("{conv}.weight"), &[output, input, kernel, kernel], init);
        Self { weight, norm: BatchNorm::new(tensors, norm, output), stride }
    }

    fn forward(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        let pad = self.weight.size()[2] / 2;
        let y = x.conv2d(&self.weight, None::<Tensor>, [self.stride, self.stride], [pad, pad], [1, 1], 1);
        self.norm.forward(&y, statistics)
    }
}

/// A residual block: two 3×3 convolutions, or 1×1, 3×3, 1×1.
#[derive(Debug)]
struct Block {
    convs: Vec<NormedConv>,
    downsample: Option<NormedConv>,
}

impl Block {
    fn new(tensors: &mut NamedTensors, name: &str, arch: Architecture, shape: ConvShape, width: i64) -> Self {
        let ConvShape { input, output, stride, .. } = shape;
        let shapes = if arch.expansion() == 1 {
            vec![(input, width, 3, stride), (width, width, 3, 1)]
        } else {
            vec![(input, width, 1, 1), (width, width, 3, stride), (width, output, 1, 1)]
        };
        let convs = (1..).zip(shapes).map(|(i, (input, output, kernel, stride))| {
            let shape = ConvShape { input, output, kernel, stride };
            NormedConv::new(tensors, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), shape)
        });
        let convs = convs.collect();
        let downsample = (stride != 1 || input != output).then(|| {
            let shape = ConvShape { kernel: 1, ..shape };
            NormedConv::new(tensors, &format!("{name}.downsample.0"), &format!("{name}.downsample.1"), shape)
        });
        Self { convs, downsample }
    }

    fn forward(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        let mut y = x.shallow_clone();
        for (i, conv) in self.convs.iter().enumerate() {
            y = conv.forward(&y, statistics);
            if i + 1 < self.convs.len() {
                y = y.relu_();
            }
        }
        match &self.downsample {
            Some(conv) => y += conv.forward(x, statistics),
            None => y += x,
        }
        y.relu_()
    }
}

/// A ResNet without its classifier.
#[derive(Debug)]
pub(super) struct ResNet {
    stem: NormedConv,
    stages: [Vec<Block>; 4],
    /// Channels of `res5`.
    pub(super) channels: i64,
}

impl ResNet {
    pub(super) fn new(tensors: &mut NamedTensors, prefix: &str, arch: Architecture, stem_width: i64) -> Self {
        let stem = ConvShape { input: 3, output: stem_width, kernel: 7, stride: 2 };
        let stem = NormedConv::new(tensors, &format!("{prefix}conv1"), &format!("{prefix}bn1"), stem);
        let mut channels = stem_width;
        let stages = std::array::from_fn(|stage| {
            let width = stem_width << stage;
            let output = width * arch.expansion() as i64;
            let block = |block: usize| {
                let stride = if block == 0 && stage > 0 { 2 } else { 1 };
                let shape = ConvShape { input: channels, output, kernel: 3, stride };
                channels = output;
                Block::new(tensors, &format!("{prefix}layer{}.{block}", stage + 1), arch, shape, width)
            };
            (0..arch.depths()[stage]).map(block).collect()
        });
        Self { stem, stages, channels }
    }

    /// `[N, 3, H, W]` → the maps of the four stages.
    pub(super) fn forward(&self, x: &Tensor, statistics: Statistics) -> FeatureMaps {
        let x = self.stem.forward(x, statistics).relu_(); // [N, C, H/2, W/2]
        let mut x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false); // [N, C, H/4, W/4]
        let stages = self.stages.each_ref().map(|blocks| {
            for block in blocks {
                x = block.forward(&x, statistics);
            }
            x.shallow_clone() // [N, C, H/s, W/s]
        });
        FeatureMaps { stages }
    }
}
