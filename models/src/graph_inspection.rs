//! Parts of a graph that several modules look at: its inputs, and the graphs inside its nodes.

use std::collections::HashSet;

use crate::proto::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// The inputs of a graph that are not constants, as old exporters list those too.
pub(crate) fn real_inputs(graph: &GraphProto) -> impl Iterator<Item = &ValueInfoProto> {
    let constants: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    graph.input.iter().filter(move |input| !constants.contains(input.name()))
}

/// Returns whether a domain is that of the ONNX standard.
pub(crate) fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

/// Inputs of a node and of the graphs inside it (branches and loop bodies see outer values).
pub(crate) fn node_inputs<'a>(node: &'a NodeProto, into: &mut Vec<&'a str>) {
    into.extend(node.input.iter().map(String::as_str));
    for attribute in &node.attribute {
        for inner in subgraphs(attribute) {
            for node in &inner.node {
                node_inputs(node, into);
            }
            into.extend(inner.output.iter().map(crate::proto::ValueInfoProto::name));
        }
    }
}

/// The graphs that an attribute holds.
pub(crate) fn subgraphs(attribute: &AttributeProto) -> impl Iterator<Item = &GraphProto> {
    attribute.g.as_deref().into_iter().chain(&attribute.graphs)
}

/// The graphs inside a node.
pub(crate) fn node_subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(subgraphs)
}
