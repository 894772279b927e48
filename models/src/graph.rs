//! Building ONNX graphs by hand: enough of the format for convolutional networks.
//!
//! A [`GraphBuilder`] appends nodes in the order of computation and hands out the names of the
//! values they produce. It does not infer shapes; ONNX Runtime checks the graph when it loads it.

use half::f16;

use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataType;
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TypeProto,
    ValueInfoProto, type_proto,
};

/// Operator set of the models that are built here; ONNX Runtime has run it since 1.12.
const OPSET: i64 = 17;
/// File format that goes with [`OPSET`].
const IR_VERSION: i64 = 8;

/// Type of the weights in the file; the arithmetic is float32 in both cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightStorage {
    /// Four bytes a weight, exact.
    Float32,
    /// Two bytes a weight, widened when the model is loaded; 11 significant bits.
    Float16,
}

/// A dense float32 tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Weight {
    /// Length of each axis.
    pub dims: Vec<usize>,
    /// Values; their number is the product of `dims`.
    pub data: Vec<f32>,
}

/// One axis of an input or output.
#[derive(Clone, Copy, Debug)]
pub enum Axis {
    /// Of this length.
    Fixed(usize),
    /// Of any length; axes of one name have equal lengths.
    Named(&'static str),
}

/// An attribute's value.
#[derive(Clone, Debug)]
pub enum Attribute {
    /// One integer.
    Int(i64),
    /// Several integers.
    Ints(Vec<i64>),
    /// One number.
    Float(f32),
}

/// A graph under construction.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: GraphProto,
}

impl GraphBuilder {
    /// An empty graph called `name`.
    pub fn new(name: &str) -> Self {
        Self { graph: GraphProto { name: Some(name.to_owned()), ..GraphProto::default() } }
    }

    /// Declares an input; returns its name.
    pub fn input(&mut self, name: &str, data_type: DataType, axes: &[Axis]) -> String {
        self.graph.input.push(value_info(name, data_type, axes));
        name.to_owned()
    }

    /// Declares the float32 value `name` to be an output.
    pub fn output(&mut self, name: &str, axes: &[Axis]) {
        self.graph.output.push(value_info(name, DataType::Float, axes));
    }

    /// Appends the node that computes `output`; returns that name.
    pub fn node(&mut self, op_type: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> String {
        self.graph.node.push(NodeProto {
            name: Some(output.to_owned()),
            op_type: Some(op_type.to_owned()),
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
            ..NodeProto::default()
        });
        output.to_owned()
    }

    /// Appends a node that another graph has.
    pub(crate) fn push(&mut self, node: NodeProto) {
        self.graph.node.push(node);
    }

    /// Adds a constant; stored as float16 it is widened by a `Cast` node, which ONNX Runtime
    /// folds away when it loads the model.
    pub fn weight(&mut self, name: &str, weight: &Weight, storage: WeightStorage) -> String {
        match storage {
            WeightStorage::Float32 => {
                let bytes = weight.data.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.initializer(name, DataType::Float, &weight.dims, bytes);
                name.to_owned()
            }
            WeightStorage::Float16 => {
                let stored = format!("{name}.float16");
                let bytes = weight.data.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
                self.initializer(&stored, DataType::Float16, &weight.dims, bytes);
                self.node("Cast", &[&stored], name, &[("to", Attribute::Int(DataType::Float as i64))])
            }
        }
    }

    /// The finished graph.
    pub fn finish(self) -> GraphProto {
        self.graph
    }

    /// Adds a constant by its little-endian bytes.
    pub(crate) fn initializer(&mut self, name: &str, data_type: DataType, dims: &[usize], bytes: Vec<u8>) {
        self.graph.initializer.push(TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(data_type as i32),
            dims: dims.iter().map(|&dim| dim as i64).collect(),
            raw_data: Some(bytes.into()),
            ..TensorProto::default()
        });
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    match value {
        Attribute::Int(i) => {
            proto.set_type(AttributeType::Int);
            proto.i = Some(*i);
        }
        Attribute::Ints(ints) => {
            proto.set_type(AttributeType::Ints);
            proto.ints.clone_from(ints);
        }
        Attribute::Float(f) => {
            proto.set_type(AttributeType::Float);
            proto.f = Some(*f);
        }
    }
    proto
}

fn value_info(name: &str, data_type: DataType, axes: &[Axis]) -> ValueInfoProto {
    let dim = axes.iter().map(|axis| {
        let value = match *axis {
            Axis::Fixed(length) => dimension::Value::DimValue(length as i64),
            Axis::Named(name) => dimension::Value::DimParam(name.to_owned()),
        };
        Dimension { value: Some(value), denotation: None }
    });
    let tensor =
        type_proto::Tensor { elem_type: Some(data_type as i32), shape: Some(TensorShapeProto { dim: dim.collect() }) };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None }),
        ..ValueInfoProto::default()
    }
}

/// A graph as a file's content, without a manifest.
pub(crate) fn bare_model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("densecl".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        ..ModelProto::default()
    }
}
