//! Writes the graph that a plan describes.

use std::collections::HashMap;

use super::range::Steps;
use super::{Int8Error, Plan, ValueRanges};
use crate::graph::{Attribute, GraphBuilder};
use crate::proto::tensor_proto::DataType;
use crate::proto::{GraphProto, NodeProto, TensorProto};

/// Weights lie in `[-127, 127]`: without an offset, −128 would have no counterpart.
const WEIGHT_STEPS: f32 = 127.0;

/// A bias of so many steps still leaves room for the products in 32 bits.
const MAX_BIAS_STEPS: f32 = (1_u32 << 30) as f32;

pub(super) struct Quantizer<'a> {
    plan: &'a Plan<'a>,
    ranges: &'a ValueRanges,
    constants: HashMap<&'a str, &'a TensorProto>,
    builder: GraphBuilder,
}

impl<'a> Quantizer<'a> {
    pub(super) fn new(graph: &'a GraphProto, plan: &'a Plan<'a>, ranges: &'a ValueRanges) -> Self {
        let constants = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        Self { plan, ranges, constants, builder: GraphBuilder::new(graph.name()) }
    }

    /// Appends `node`, with its inputs rounded as planned, and behind it the rounding of its outputs.
    pub(super) fn append(&mut self, node: &NodeProto) -> Result<(), Int8Error> {
        let mut appended = node.clone();
        for input in &mut appended.input {
            if self.plan.reads_rounded(node, input) {
                *input = rounded(input);
            }
        }
        if node.op_type() == "Conv" && self.plan.is_integer(node) {
            self.convolution_constants(node, &mut appended)?;
        }
        self.builder.push(appended);
        for output in &node.output {
            if let Some(source) = self.plan.source(output) {
                self.round(output, source)?;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> GraphProto {
        self.builder.finish()
    }

    /// `QuantizeLinear` and `DequantizeLinear` behind `value`.
    fn round(&mut self, value: &str, source: &str) -> Result<(), Int8Error> {
        let steps = self.steps(source)?;
        let (scale, zero_point) = (format!("{source}.scale"), format!("{source}.zero_point"));
        if value == source {
            self.builder.initializer(&scale, DataType::Float, &[], steps.scale.to_le_bytes().to_vec());
            self.builder.initializer(&zero_point, DataType::Uint8, &[], vec![steps.zero_point]);
        }
        let integers =
            self.builder.node("QuantizeLinear", &[value, &scale, &zero_point], &format!("{value}.quantized"), &[]);
        self.builder.node("DequantizeLinear", &[&integers, &scale, &zero_point], &rounded(value), &[]);
        Ok(())
    }

    /// Replaces weights and bias by integers and the nodes that say what they stand for.
    fn convolution_constants(&mut self, node: &NodeProto, into: &mut NodeProto) -> Result<(), Int8Error> {
        let source = self.plan.source(&node.input[0]).expect("an integer convolution reads a rounded value");
        let input = self.steps(source)?;
        let (weights, bias) = (self.floats(&node.input[1])?, self.floats(&node.input[2])?);
        let dims: Vec<usize> = self.constants[node.input[1].as_str()].dims.iter().map(|&dim| dim as usize).collect();
        let channels = dims.first().copied().unwrap_or_default().max(1);
        let Channels { scales, integers } = Channels::quantize(&weights, &bias, channels, input.scale);
        let bias_scales: Vec<f32> = scales.iter().map(|scale| scale * input.scale).collect();
        let bias_integers =
            bias.iter().zip(&bias_scales).flat_map(|(value, scale)| ((value / scale).round() as i32).to_le_bytes());
        let weights = Integers { data_type: DataType::Int8, dims: &dims, bytes: integers };
        let bias = Integers { data_type: DataType::Int32, dims: &[channels], bytes: bias_integers.collect() };
        into.input[1] = self.constant(&node.input[1], weights, &scales);
        into.input[2] = self.constant(&node.input[2], bias, &bias_scales);
        Ok(())
    }

    /// A constant with a scale for each element of its first axis; returns the name of what it stands for.
    fn constant(&mut self, name: &str, integers: Integers<'_>, scales: &[f32]) -> String {
        let [stored, scale, zero_point] = ["quantized", "scale", "zero_point"].map(|part| format!("{name}.{part}"));
        let Integers { data_type, dims, bytes } = integers;
        let zeros = vec![0; bytes.len() / dims.iter().product::<usize>().max(1) * scales.len()];
        self.builder.initializer(&stored, data_type, dims, bytes);
        let scale_bytes = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        self.builder.initializer(&scale, DataType::Float, &[scales.len()], scale_bytes);
        self.builder.initializer(&zero_point, data_type, &[scales.len()], zeros);
        let first_axis = [("axis", Attribute::Int(0))];
        self.builder.node("DequantizeLinear", &[&stored, &scale, &zero_point], &rounded(name), &first_axis)
    }

    fn steps(&self, value: &str) -> Result<Steps, Int8Error> {
        let range = self.ranges.get(value).ok_or_else(|| Int8Error::NoRange(value.to_owned()))?;
        range.steps().ok_or_else(|| Int8Error::NotFinite(value.to_owned()))
    }

    fn floats(&self, name: &str) -> Result<Vec<f32>, Int8Error> {
        let tensor = self.constants[name];
        let bytes = tensor.raw_data();
        let expected = tensor.dims.iter().try_fold(4_i64, |bytes, dim| bytes.checked_mul(*dim));
        if tensor.data_type() != DataType::Float as i32 || expected != Some(bytes.len() as i64) {
            return Err(Int8Error::Storage(name.to_owned()));
        }
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        let finite = values.iter().all(|value| value.is_finite());
        if finite { Ok(values) } else { Err(Int8Error::NotFinite(name.to_owned())) }
    }
}

/// A constant as it is stored.
struct Integers<'a> {
    data_type: DataType,
    dims: &'a [usize],
    bytes: Vec<u8>,
}

/// The weights of a convolution, channel by channel.
struct Channels {
    /// `weight = integer·scale`.
    scales: Vec<f32>,
    /// int8, as bytes.
    integers: Vec<u8>,
}

impl Channels {
    fn quantize(weights: &[f32], bias: &[f32], channels: usize, input_scale: f32) -> Self {
        let mut found = Self { scales: Vec::with_capacity(channels), integers: Vec::with_capacity(weights.len()) };
        for (channel, weights) in weights.chunks((weights.len() / channels).max(1)).enumerate() {
            let largest = weights.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
            // A channel that hardly looks at its input: its bias must fit in 32 bits all the same.
            let bias = bias.get(channel).map_or(0.0, |bias| bias.abs());
            let scale = (largest / WEIGHT_STEPS).max(bias / input_scale / MAX_BIAS_STEPS);
            let scale = if scale > 0.0 { scale } else { 1.0 };
            found.scales.push(scale);
            let integer = |weight: &f32| (weight / scale).round().clamp(-WEIGHT_STEPS, WEIGHT_STEPS) as i8 as u8;
            found.integers.extend(weights.iter().map(integer));
        }
        found
    }
}

/// Name of a value after rounding.
fn rounded(value: &str) -> String {
    format!("{value}.rounded")
}
