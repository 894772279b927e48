//! ResNet backbones, named as torchvision names them.
//!
//! Source: He et al., arXiv 1512.03385, table 1; the stride sits on the 3×3 convolution of a
//! bottleneck, as in torchvision. `stem_width` scales every layer; 64 is the standard network.
//! [`OutputStride`] determines which strides become dilations.

use densecl_models::resnet::{Architecture, OutputStride, Sampling, StageSampling};
use tch::Tensor;

use super::batch_norm::{BatchNorm, Statistics};
use super::tensors::NamedTensors;

/// Output of a backbone for images `[N, 3, H, W]`.
#[derive(Debug)]
pub struct FeatureMaps {
    /// `res2` to `res5`: `[N, C_i, H/s, W/s]` at strides 4, 8, 16 and 32, or finer where they are
    /// dilated.
    pub stages: [Tensor; 4],
}

/// A convolution without bias and the BatchNorm behind it.
#[derive(Debug)]
struct NormedConv {
    weight: Tensor,
    norm: BatchNorm,
    sampling: Sampling,
}

/// Shape of a convolution: channels in and out, kernel, stride and dilation.
#[derive(Clone, Copy)]
struct ConvShape {
    input: i64,
    output: i64,
    kernel: i64,
    sampling: Sampling,
}

impl NormedConv {
    fn new(tensors: &mut NamedTensors, conv: &str, norm: &str, shape: ConvShape) -> Self {
        let ConvShape { input, output, kernel, sampling } = shape;
        // Kaiming-normal over the fan-in, gain for ReLU.
        let deviation = (2.0 / (input * kernel * kernel) as f64).sqrt();
        let init = |tensor: &mut Tensor| drop(tensor.normal_(0.0, deviation));
        let weight = tensors.parameter(format!("{conv}.weight"), &[output, input, kernel, kernel], init);
        Self { weight, norm: BatchNorm::new(tensors, norm, output), sampling }
    }

    fn forward(&self, x: &Tensor, statistics: Statistics) -> Tensor {
        let Sampling { stride, dilation } = self.sampling;
        let pad = dilation * (self.weight.size()[2] / 2);
        let y = x.conv2d(&self.weight, None::<Tensor>, [stride, stride], [pad, pad], [dilation, dilation], 1); // [N, C_out, H/stride, W/stride]
        self.norm.forward(&y, statistics)
    }
}

/// A residual block: two 3×3 convolutions, or 1×1, 3×3, 1×1.
#[derive(Debug)]
struct Block {
    convs: Vec<NormedConv>,
    downsample: Option<NormedConv>,
}

/// Shape and position of a block: input channels, width of its 3×3 convolutions, output channels.
#[derive(Clone, Copy)]
struct BlockShape {
    input: i64,
    width: i64,
    output: i64,
    /// Its index in the stage.
    index: usize,
    stage: StageSampling,
}

impl Block {
    fn new(tensors: &mut NamedTensors, name: &str, arch: Architecture, shape: BlockShape) -> Self {
        let BlockShape { input, width, output, index, stage } = shape;
        let conv = |input, output, kernel, sampling| ConvShape { input, output, kernel, sampling };
        let (first, second) = (stage.convolution(index, 0), stage.convolution(index, 1));
        let shapes = if arch.expansion() == 1 {
            vec![conv(input, width, 3, first), conv(width, width, 3, second)]
        } else {
            let one = Sampling::DENSE;
            vec![conv(input, width, 1, one), conv(width, width, 3, first), conv(width, output, 1, one)]
        };
        let convs = (1..)
            .zip(shapes)
            .map(|(i, shape)| NormedConv::new(tensors, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), shape))
            .collect();
        let downsample = (first.stride != 1 || input != output).then(|| {
            let shape = conv(input, output, 1, Sampling { dilation: 1, ..first });
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

/// Size and shape of a ResNet.
#[derive(Clone, Copy)]
pub(super) struct ResNetSpec {
    pub(super) architecture: Architecture,
    pub(super) stem_width: i64,
    pub(super) output_stride: OutputStride,
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
    pub(super) fn new(tensors: &mut NamedTensors, prefix: &str, spec: ResNetSpec) -> Self {
        let ResNetSpec { architecture: arch, stem_width, output_stride } = spec;
        let sampling = Sampling { stride: 2, dilation: 1 };
        let stem = ConvShape { input: 3, output: stem_width, kernel: 7, sampling };
        let stem = NormedConv::new(tensors, &format!("{prefix}conv1"), &format!("{prefix}bn1"), stem);
        let mut channels = stem_width;
        let stages = std::array::from_fn(|stage| {
            let width = stem_width << stage;
            let output = width * arch.expansion() as i64;
            let block = |index: usize| {
                let shape = BlockShape { input: channels, width, output, index, stage: output_stride.stage(stage) };
                channels = output;
                Block::new(tensors, &format!("{prefix}layer{}.{index}", stage + 1), arch, shape)
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
