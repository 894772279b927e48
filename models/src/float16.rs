//! A graph that computes in float16 instead of float32: half the memory traffic, and the GPU's
//! tensor cores.
//!
//! Every float32 tensor of the graph becomes a float16 one; the outputs are widened again at the
//! end, so that inputs and outputs keep their types.

use std::collections::HashSet;

use bytes::Bytes;
use half::f16;

use crate::graph_inspection::is_standard;
use crate::proto::tensor_proto::DataType;
use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto, type_proto};

/// Operators whose float inputs and outputs have one type, whichever float type that is. Others
/// (`Resize` with its float32 scales, say) would need more than a change of type.
const OPERATORS: [&str; 34] = [
    "Add",
    "AveragePool",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "Div",
    "Erf",
    "Exp",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LayerNormalization",
    "LeakyRelu",
    "MatMul",
    "MaxPool",
    "Mul",
    "Pow",
    "ReduceMean",
    "Relu",
    "Reshape",
    "Sigmoid",
    "Softmax",
    "Sqrt",
    "Sub",
    "Tanh",
    "Transpose",
    "Unsqueeze",
];

/// Reason why a graph cannot be computed in float16.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Float16Error {
    /// An operator that is not known to work in float16.
    Operator(String),
    /// A constant with values that float16 does not hold.
    Range(String),
}

/// Makes every float32 tensor of `graph` a float16 one, but its inputs and outputs.
pub(crate) fn to_float16(mut graph: GraphProto) -> Result<GraphProto, Float16Error> {
    if let Some(node) = graph.node.iter().find(|node| !is_known(node)) {
        return Err(Float16Error::Operator(node.op_type().to_owned()));
    }
    for tensor in &mut graph.initializer {
        narrow(tensor)?;
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        narrow_attribute(attribute)?;
    }
    // Shapes and types between the nodes are optional, and these would be wrong now.
    graph.value_info.clear();
    let outputs: Vec<String> = graph.output.iter().filter(|output| is_float(output)).map(name_of).collect();
    for output in outputs {
        let narrow = unused_name(&graph, format!("{output}.float16"));
        for node in &mut graph.node {
            for name in node.input.iter_mut().chain(&mut node.output).filter(|name| **name == output) {
                name.clone_from(&narrow);
            }
        }
        graph.node.push(widening(&narrow, &output));
    }
    Ok(graph)
}

/// Returns whether a node computes the same in float16 as in float32, once its constants are float16.
fn is_known(node: &NodeProto) -> bool {
    // A `Constant` may also be a number among its attributes, which has no narrow form.
    let is_number = |attribute: &AttributeProto| attribute.f.is_some() || !attribute.floats.is_empty();
    OPERATORS.contains(&node.op_type())
        && is_standard(node.domain())
        && !(node.op_type() == "Constant" && node.attribute.iter().any(is_number))
}

/// `name`, or, if that is taken, one like it.
fn unused_name(graph: &GraphProto, mut name: String) -> String {
    let constants = graph.initializer.iter().map(TensorProto::name);
    let made = graph.node.iter().flat_map(|node| &node.output).map(String::as_str);
    let taken: HashSet<&str> = constants.chain(made).chain(graph.input.iter().map(ValueInfoProto::name)).collect();
    while taken.contains(name.as_str()) {
        name.push('_');
    }
    name
}

/// The node that widens `narrow` to the float32 `output`.
fn widening(narrow: &str, output: &str) -> NodeProto {
    let mut to = AttributeProto { name: Some("to".to_owned()), i: Some(DataType::Float as i64), ..Default::default() };
    to.set_type(crate::proto::attribute_proto::AttributeType::Int);
    NodeProto {
        name: Some(format!("{output}.widened")),
        op_type: Some("Cast".to_owned()),
        input: vec![narrow.to_owned()],
        output: vec![output.to_owned()],
        attribute: vec![to],
        ..NodeProto::default()
    }
}

/// A `Cast` to float32 becomes one to float16, a `Constant` is narrowed.
fn narrow_attribute(attribute: &mut AttributeProto) -> Result<(), Float16Error> {
    if attribute.name() == "to" && attribute.i() == DataType::Float as i64 {
        attribute.i = Some(DataType::Float16 as i64);
    }
    attribute.t.as_deref_mut().map_or(Ok(()), narrow)
}

fn narrow(tensor: &mut TensorProto) -> Result<(), Float16Error> {
    if tensor.data_type() != DataType::Float as i32 {
        return Ok(());
    }
    let values: Vec<f32> = match &tensor.raw_data {
        Some(raw) => raw.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect(),
        None => std::mem::take(&mut tensor.float_data),
    };
    let narrowed: Vec<f16> = values.into_iter().map(f16::from_f32).collect();
    if narrowed.iter().any(|value| !value.is_finite()) {
        return Err(Float16Error::Range(tensor.name().to_owned()));
    }
    let bytes: Vec<u8> = narrowed.into_iter().flat_map(f16::to_le_bytes).collect();
    tensor.raw_data = Some(Bytes::from(bytes));
    tensor.data_type = Some(DataType::Float16 as i32);
    Ok(())
}

fn name_of(value: &ValueInfoProto) -> String {
    value.name().to_owned()
}

fn is_float(value: &ValueInfoProto) -> bool {
    let tensor = value.r#type.as_ref().and_then(|kind| kind.value.as_ref());
    matches!(tensor, Some(type_proto::Value::TensorType(tensor)) if tensor.elem_type() == DataType::Float as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Attribute, Axis, GraphBuilder, Weight, WeightStorage};

    fn graph(operator: &str, factor: f32) -> GraphProto {
        let axes = [Axis::Named("N"), Axis::Fixed(3)];
        let mut builder = GraphBuilder::new("test");
        let input = builder.input("images", DataType::Uint8, &axes);
        let float = Attribute::Int(DataType::Float as i64);
        let x = builder.node("Cast", &[&input], "float", &[("to", float)]);
        let weight = Weight { dims: vec![1], data: vec![factor] };
        let stored = builder.weight("stored", &weight, WeightStorage::Float16);
        let plain = builder.weight("plain", &weight, WeightStorage::Float32);
        let x = builder.node("Mul", &[&x, &stored], "first", &[]);
        builder.node(operator, &[&x, &plain], "second", &[]);
        for output in ["first", "second"] {
            builder.output(output, &axes);
        }
        builder.finish()
    }

    #[test]
    fn only_the_ends_stay_float32() {
        let narrow = to_float16(graph("Add", 0.5)).unwrap();
        assert!(narrow.initializer.iter().all(|tensor| tensor.data_type() == DataType::Float16 as i32));
        assert_eq!(narrow.initializer[1].raw_data(), f16::from_f32(0.5).to_le_bytes());
        let targets: Vec<i64> =
            narrow.node.iter().filter(|node| node.op_type() == "Cast").map(|node| node.attribute[0].i()).collect();
        let (float16, float32) = (DataType::Float16 as i64, DataType::Float as i64);
        assert_eq!(targets, [float16, float16, float32, float32]);
        // An output that feeds another node feeds it in its narrow form.
        let second = narrow.node.iter().find(|node| node.op_type() == "Add").unwrap();
        assert_eq!(second.input[0], "first.float16");
        assert_eq!(narrow.output.iter().map(ValueInfoProto::name).collect::<Vec<_>>(), ["first", "second"]);
    }

    #[test]
    fn what_float16_cannot_do_is_named() {
        assert_eq!(to_float16(graph("Resize", 0.5)), Err(Float16Error::Operator("Resize".to_owned())));
        assert_eq!(to_float16(graph("Add", 1e6)).unwrap_err(), Float16Error::Range("plain".to_owned()));
    }
}
