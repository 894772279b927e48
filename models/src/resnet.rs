//! ResNets with DenseCL's heads as ONNX graphs, from named weights.
//!
//! Names are torchvision's for the backbone (`layer1.0.conv1.weight`), `global_head.{0,2}` and
//! `dense_head.{0,2}` for the projection heads. BatchNorm is folded into the convolution before
//! it. What is not done here: checking that the graph computes what libtorch computes, which is
//! the exporter's part.
//!
//! Source: He et al., arXiv 1512.03385, table 1, with the stride on the 3×3 convolution as
//! torchvision has it; heads from Wang et al., arXiv 2011.09157, section 3.2.

mod built_graph;
mod output_stride;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::graph::{Attribute, Axis, GraphBuilder, Weight, WeightStorage};
use crate::manifest::Layer;
use crate::onnx_model::INPUT;
use crate::proto::tensor_proto::DataType;

pub use built_graph::{BuiltGraph, UnknownOutput};
pub use output_stride::{OutputStride, Sampling, StageSampling};

/// Named weights of a network.
pub type Weights = BTreeMap<String, Weight>;

/// Epsilon of every BatchNorm.
pub const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A ResNet by its number of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// Basic blocks, 2-2-2-2.
    ResNet18,
    /// Basic blocks, 3-4-6-3.
    ResNet34,
    /// Bottlenecks, 3-4-6-3.
    ResNet50,
    /// Bottlenecks, 3-4-23-3.
    ResNet101,
}

impl Architecture {
    /// All of them, smallest first.
    pub const ALL: [Self; 4] = [Self::ResNet18, Self::ResNet34, Self::ResNet50, Self::ResNet101];

    /// Blocks in each of the four stages.
    pub fn depths(self) -> [usize; 4] {
        match self {
            Self::ResNet18 => [2, 2, 2, 2],
            Self::ResNet34 | Self::ResNet50 => [3, 4, 6, 3],
            Self::ResNet101 => [3, 4, 23, 3],
        }
    }

    /// Convolutions in a block: 2 in a basic block, 3 in a bottleneck.
    pub fn convolutions_per_block(self) -> usize {
        if self.expansion() == 1 { 2 } else { 3 }
    }

    /// A stage's output channels over its width.
    pub fn expansion(self) -> usize {
        match self {
            Self::ResNet18 | Self::ResNet34 => 1,
            Self::ResNet50 | Self::ResNet101 => 4,
        }
    }

    /// Output channels of stage 0 to 3 for a stem of `stem_width` channels.
    pub fn channels(self, stage: usize, stem_width: usize) -> usize {
        stem_width * (1 << stage) * self.expansion()
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ResNet18 => "resnet18",
            Self::ResNet34 => "resnet34",
            Self::ResNet50 => "resnet50",
            Self::ResNet101 => "resnet101",
        })
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|a| a.to_string() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(Self::to_string).collect();
            format!("unknown architecture `{name}`; known are {}", known.join(", "))
        })
    }
}

/// Parameters of a graph, apart from the weights.
#[derive(Clone, Copy, Debug)]
pub struct GraphSpec {
    /// The backbone.
    pub architecture: Architecture,
    /// Strides of its stages that are dilations instead.
    pub output_stride: OutputStride,
    /// Per-channel mean of RGB in `[0, 1]`.
    pub mean: [f32; 3],
    /// Per-channel standard deviation of RGB in `[0, 1]`.
    pub std: [f32; 3],
    /// How convolution and linear weights are stored.
    pub storage: WeightStorage,
}

/// The weights do not make up the network asked for.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A weight is not there.
    #[error("the weights lack `{0}`")]
    Missing(String),
    /// A weight has a shape that does not fit its neighbours.
    #[error("`{name}` has shape {found:?}; expected {expected}")]
    Shape {
        /// The weight's name.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// A shape that fits.
        expected: &'static str,
    },
    /// A weight is infinite, not a number, or too large for float16 storage.
    #[error("`{0}` holds values that are not finite in the chosen storage")]
    NotFinite(String),
}

/// Builds the graph `images` → `res2` … `res5` and, as far as the weights hold the heads,
/// `dense` and `global`.
///
/// # Errors
/// If a weight is missing, of the wrong shape, or not finite.
pub fn build(spec: &GraphSpec, weights: &Weights) -> Result<BuiltGraph, BuildError> {
    let mut net = Network { weights, storage: spec.storage, builder: GraphBuilder::new("densecl"), layers: Vec::new() };
    let mut x = net.preprocess(spec);
    x = net.convolution(&x, "conv1", "bn1", Conv { sampling: Sampling { stride: 2, dilation: 1 }, relu: true })?;
    let pool = [("kernel_shape", ints([3, 3])), ("strides", ints([2, 2])), ("pads", ints([1, 1, 1, 1]))];
    x = net.builder.node("MaxPool", &[&x], "maxpool", &pool);
    for (stage, &depth) in spec.architecture.depths().iter().enumerate() {
        for block in 0..depth {
            let last = block + 1 == depth;
            let output = if last { format!("res{}", stage + 2) } else { format!("layer{}.{block}", stage + 1) };
            x = net.block(spec, &x, (stage, block), &output)?;
        }
        let channels = net.get(&format!(
            "layer{}.{}.bn{}.weight",
            stage + 1,
            depth - 1,
            spec.architecture.convolutions_per_block()
        ))?;
        let channels = channels.data.len();
        net.layer(&x, channels, spec.output_stride.stage(stage).cell_px);
    }
    net.dense_head(&x, spec.output_stride)?;
    let global = net.global_head(&x)?;
    Ok(BuiltGraph { graph: net.builder.finish(), layers: net.layers, global })
}

struct Network<'a> {
    weights: &'a Weights,
    storage: WeightStorage,
    builder: GraphBuilder,
    layers: Vec<Layer>,
}

/// Stride and dilation of a convolution; the padding keeps the size at stride 1.
#[derive(Clone, Copy)]
struct Conv {
    sampling: Sampling,
    relu: bool,
}

impl<'a> Network<'a> {
    /// uint8 `[N, H, W, 3]` → normalised float32 `[N, 3, H, W]`.
    fn preprocess(&mut self, spec: &GraphSpec) -> String {
        let axes = [Axis::Named("N"), Axis::Named("H"), Axis::Named("W"), Axis::Fixed(3)];
        let images = self.builder.input(INPUT, DataType::Uint8, &axes);
        let float = Attribute::Int(DataType::Float as i64);
        let x = self.builder.node("Cast", &[&images], "images.float", &[("to", float)]);
        let x = self.builder.node("Transpose", &[&x], "images.nchw", &[("perm", ints([0, 3, 1, 2]))]);
        let per_channel = |f: &dyn Fn(usize) -> f32| Weight { dims: vec![1, 3, 1, 1], data: (0..3).map(f).collect() };
        let scale = per_channel(&|c| 1.0 / (255.0 * spec.std[c]));
        let shift = per_channel(&|c| -spec.mean[c] / spec.std[c]);
        let scale = self.builder.weight("images.scale", &scale, WeightStorage::Float32);
        let shift = self.builder.weight("images.shift", &shift, WeightStorage::Float32);
        let x = self.builder.node("Mul", &[&x, &scale], "images.scaled", &[]);
        self.builder.node("Add", &[&x, &shift], "images.normalized", &[])
    }

    fn block(
        &mut self,
        spec: &GraphSpec,
        x: &str,
        (stage, block): (usize, usize),
        output: &str,
    ) -> Result<String, BuildError> {
        let name = format!("layer{}.{block}", stage + 1);
        let sampling = spec.output_stride.stage(stage);
        let count = spec.architecture.convolutions_per_block();
        let mut y = x.to_owned();
        for i in 1..=count {
            let sampling = match count {
                2 => sampling.convolution(block, i - 1),
                // A bottleneck has one 3×3 convolution, between two that see single cells.
                _ if i == 2 => sampling.convolution(block, 0),
                _ => Sampling::DENSE,
            };
            let conv = Conv { sampling, relu: i < count };
            y = self.convolution(&y, &format!("{name}.conv{i}"), &format!("{name}.bn{i}"), conv)?;
        }
        let mut shortcut = x.to_owned();
        if self.weights.contains_key(&format!("{name}.downsample.0.weight")) {
            let (conv, norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
            let sampling = Sampling { stride: sampling.convolution(block, 0).stride, dilation: 1 };
            shortcut = self.convolution(x, &conv, &norm, Conv { sampling, relu: false })?;
        }
        let sum = self.builder.node("Add", &[&y, &shortcut], &format!("{name}.sum"), &[]);
        Ok(self.builder.node("Relu", &[&sum], output, &[]))
    }

    /// Convolution with the BatchNorm `norm` folded into it.
    fn convolution(&mut self, x: &str, conv: &str, norm: &str, how: Conv) -> Result<String, BuildError> {
        let (weight, bias) = self.folded(conv, norm)?;
        let kernel = weight.dims[2] as i64;
        let weight = self.weight(&format!("{conv}.weight"), &weight)?;
        let bias = self.bias(&format!("{conv}.bias"), &bias)?;
        let Sampling { stride, dilation } = how.sampling;
        let pad = dilation * (kernel / 2);
        let attributes = [
            ("kernel_shape", ints([kernel, kernel])),
            ("strides", ints([stride, stride])),
            ("dilations", ints([dilation, dilation])),
            ("pads", ints([pad, pad, pad, pad])),
        ];
        let y = self.builder.node("Conv", &[x, &weight, &bias], conv, &attributes);
        Ok(if how.relu { self.builder.node("Relu", &[&y], &format!("{conv}.relu"), &[]) } else { y })
    }

    /// `w·γ/√(σ² + ε)` and `β − μ·γ/√(σ² + ε)`, computed in float64.
    fn folded(&self, conv: &str, norm: &str) -> Result<(Weight, Weight), BuildError> {
        let mut weight = self.get(&format!("{conv}.weight"))?.clone();
        let &[out, _, height, width] = weight.dims.as_slice() else {
            return Err(shape(&format!("{conv}.weight"), &weight, "[out, in, k, k]"));
        };
        if height != width || out == 0 {
            return Err(shape(&format!("{conv}.weight"), &weight, "[out, in, k, k]"));
        }
        let statistic = |name: &str| {
            let name = format!("{norm}.{name}");
            let found = self.get(&name)?;
            if found.data.len() == out { Ok(&found.data) } else { Err(shape(&name, found, "one value per channel")) }
        };
        let (gamma, beta) = (statistic("weight")?, statistic("bias")?);
        let (mean, var) = (statistic("running_mean")?, statistic("running_var")?);
        let mut bias = Weight { dims: vec![out], data: Vec::with_capacity(out) };
        let per_channel = weight.data.len() / out;
        for (channel, values) in weight.data.chunks_mut(per_channel).enumerate() {
            let scale = f64::from(gamma[channel]) / (f64::from(var[channel]) + BATCH_NORM_EPSILON).sqrt();
            for value in values {
                *value = (f64::from(*value) * scale) as f32;
            }
            bias.data.push((f64::from(beta[channel]) - f64::from(mean[channel]) * scale) as f32);
        }
        Ok((weight, bias))
    }

    /// 1×1 convolution, ReLU, 1×1 convolution (arXiv 2011.09157, section 3.2).
    fn dense_head(&mut self, x: &str, stride: OutputStride) -> Result<(), BuildError> {
        if !self.weights.contains_key("dense_head.0.weight") {
            return Ok(());
        }
        let hidden = self.head_layer("Conv", x, "dense_head.0", "dense_head.0")?;
        let hidden = self.builder.node("Relu", &[&hidden], "dense_head.1", &[]);
        self.head_layer("Conv", &hidden, "dense_head.2", "dense")?;
        let channels = self.get("dense_head.2.bias")?.data.len();
        self.layer("dense", channels, stride.pixels());
        Ok(())
    }

    /// Spatial mean, linear, ReLU, linear (MoCo-v2's head, arXiv 2003.04297).
    fn global_head(&mut self, x: &str) -> Result<Option<u32>, BuildError> {
        if !self.weights.contains_key("global_head.0.weight") {
            return Ok(None);
        }
        let mean = self.builder.node("GlobalAveragePool", &[x], "global_head.mean", &[]);
        let mean = self.builder.node("Flatten", &[&mean], "global_head.flat", &[("axis", Attribute::Int(1))]);
        let hidden = self.head_layer("Gemm", &mean, "global_head.0", "global_head.0")?;
        let hidden = self.builder.node("Relu", &[&hidden], "global_head.1", &[]);
        self.head_layer("Gemm", &hidden, "global_head.2", "global")?;
        let length = self.get("global_head.2.bias")?.data.len();
        self.builder.output("global", &[Axis::Named("N"), Axis::Fixed(length)]);
        Ok(Some(length as u32))
    }

    /// One layer of a head: a 1×1 `Conv` or a `Gemm` with the weight as `[out, in]`.
    fn head_layer(&mut self, op_type: &str, x: &str, name: &str, output: &str) -> Result<String, BuildError> {
        let (weight_name, bias_name) = (format!("{name}.weight"), format!("{name}.bias"));
        let weight = self.weight(&weight_name, self.get(&weight_name)?)?;
        let bias = self.bias(&bias_name, self.get(&bias_name)?)?;
        let attributes: &[_] = if op_type == "Gemm" { &[("transB", Attribute::Int(1))] } else { &[] };
        Ok(self.builder.node(op_type, &[x, &weight, &bias], output, attributes))
    }

    fn layer(&mut self, name: &str, channels: usize, stride: u32) {
        // Names tell which axes are equal: all layers of one stride share theirs.
        let (h, w) = match stride {
            4 => ("H/4", "W/4"),
            8 => ("H/8", "W/8"),
            16 => ("H/16", "W/16"),
            _ => ("H/32", "W/32"),
        };
        self.builder.output(name, &[Axis::Named("N"), Axis::Fixed(channels), Axis::Named(h), Axis::Named(w)]);
        self.layers.push(Layer { name: name.to_owned(), channels: channels as u32, stride });
    }

    fn get(&self, name: &str) -> Result<&'a Weight, BuildError> {
        self.weights.get(name).ok_or_else(|| BuildError::Missing(name.to_owned()))
    }

    fn weight(&mut self, name: &str, weight: &Weight) -> Result<String, BuildError> {
        let limit = match self.storage {
            WeightStorage::Float32 => f32::MAX,
            WeightStorage::Float16 => half::f16::MAX.to_f32(),
        };
        finite(name, weight, limit)?;
        Ok(self.builder.weight(name, weight, self.storage))
    }

    /// Biases stay float32: they are a thousandth of the file and add up.
    fn bias(&mut self, name: &str, bias: &Weight) -> Result<String, BuildError> {
        finite(name, bias, f32::MAX)?;
        Ok(self.builder.weight(name, bias, WeightStorage::Float32))
    }
}

fn finite(name: &str, weight: &Weight, limit: f32) -> Result<(), BuildError> {
    let fits = weight.data.iter().all(|value| value.abs() <= limit);
    if fits { Ok(()) } else { Err(BuildError::NotFinite(name.to_owned())) }
}

fn shape(name: &str, weight: &Weight, expected: &'static str) -> BuildError {
    BuildError::Shape { name: name.to_owned(), found: weight.dims.clone(), expected }
}

fn ints<const N: usize>(values: [i64; N]) -> Attribute {
    Attribute::Ints(values.to_vec())
}

#[cfg(test)]
mod tests;
