//! A graph whose convolutions compute in 8-bit integers.
//!
//! The form is QDQ: pairs of `QuantizeLinear` and `DequantizeLinear` around operators that stay
//! what they are. Every runtime of ONNX can compute it; ONNX Runtime fuses each convolution, each
//! addition and the pooling with the pairs around it into one integer kernel. Activations are
//! uint8 with one scale a tensor, weights int8 with one scale a channel and no offset, biases int32
//! at the product of the two: what VNNI multiplies and adds in one instruction.
//!
//! Integers: convolutions with constant weights, additions of two activations, max pooling. What
//! comes before (normalisation) and behind them (pooling, projections that are outputs) stays
//! float32, and so do all outputs: an output is never rounded itself, only what it is summed from.
//!
//! This module does not measure the ranges of the activations: the caller runs a [`CalibrationModel`]
//! on images and gives the [`ValueRange`]s of its outputs to [`quantize`].
//!
//! Source: Jacob et al., arXiv 1712.05877, section 2; per-channel weights from Krishnamoorthi,
//! arXiv 1806.08342, section 3.

mod plan;
mod quantizer;
mod range;

use std::collections::HashSet;

use prost::Message;

pub use range::{ValueRange, ValueRanges};

use crate::cut::cut;
use crate::graph::bare_model;
use crate::proto::tensor_proto::DataType;
use crate::proto::{GraphProto, TypeProto, ValueInfoProto, type_proto};
use plan::Plan;
use quantizer::Quantizer;

/// Why a graph cannot be computed in integers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Int8Error {
    /// There is no convolution with constant weights in it.
    #[error("the graph has no convolution that could compute in integers")]
    Nothing,
    /// A value's range is not known.
    #[error("no range is known for `{0}`")]
    NoRange(String),
    /// A value's range is infinite or not a number, as of weights that are.
    #[error("the values of `{0}` are not finite")]
    NotFinite(String),
    /// A convolution's constant is not float32, or not stored as bytes.
    #[error("the constant `{0}` is not stored as float32")]
    Storage(String),
}

/// The float model, up to the values whose ranges [`quantize`] needs, and with these as its outputs.
#[derive(Clone, Debug)]
pub struct CalibrationModel {
    /// Names of the values, in the order of computation.
    pub values: Vec<String>,
    /// An ONNX file without a manifest.
    pub bytes: Vec<u8>,
}

impl CalibrationModel {
    /// The one for `graph`.
    ///
    /// # Errors
    /// If nothing in `graph` could compute in integers.
    pub fn new(graph: &GraphProto) -> Result<Self, Int8Error> {
        let values: Vec<String> = Plan::new(graph).measured().map(str::to_owned).collect();
        if values.is_empty() {
            return Err(Int8Error::Nothing);
        }
        let names: Vec<&str> = values.iter().map(String::as_str).collect();
        let bytes = bare_model(ending_in(graph, &names)).encode_to_vec();
        Ok(Self { values, bytes })
    }
}

/// The part of `graph` that computes the float32 values called `names`, which are its outputs.
fn ending_in(graph: &GraphProto, names: &[&str]) -> GraphProto {
    let output = names.iter().map(|name| float_value(name)).collect();
    cut(&GraphProto { output, ..graph.clone() }, names).expect("these are its outputs")
}

/// A float32 tensor of whatever shape.
fn float_value(name: &str) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(DataType::Float as i32), shape: None };
    let float = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(float), ..ValueInfoProto::default() }
}

/// Makes the convolutions of `graph`, and what lies between them, compute in integers.
///
/// # Errors
/// If there is nothing to compute so, a range is missing, or numbers are not finite.
pub fn quantize(graph: &GraphProto, ranges: &ValueRanges) -> Result<GraphProto, Int8Error> {
    let plan = Plan::new(graph);
    if plan.measured().next().is_none() {
        return Err(Int8Error::Nothing);
    }
    let mut quantizer = Quantizer::new(graph, &plan, ranges);
    for node in &graph.node {
        quantizer.append(node)?;
    }
    let mut quantized = quantizer.finish();
    quantized.input.clone_from(&graph.input);
    quantized.output.clone_from(&graph.output);
    let used: HashSet<&str> = quantized.node.iter().flat_map(|node| &node.input).map(String::as_str).collect();
    let kept: Vec<_> = graph.initializer.iter().filter(|tensor| used.contains(tensor.name())).cloned().collect();
    quantized.initializer.extend(kept);
    Ok(quantized)
}

/// Returns whether a graph has the form that [`quantize`] makes.
pub(crate) fn is_quantized(graph: &GraphProto) -> bool {
    graph.node.iter().any(|node| node.op_type() == "QuantizeLinear")
}

#[cfg(test)]
mod tests;
