//! Cutting a graph: only what the wanted outputs need remains.
//!
//! ONNX Runtime computes a whole graph whichever outputs are fetched, so a request for an early
//! layer is only cheaper on a graph that ends there.

use std::collections::{HashMap, HashSet};

use crate::graph_inspection::{node_inputs, real_inputs};
use crate::proto::GraphProto;

/// The part of `graph` that computes `outputs`, in the order given; all inputs remain, but for constants
/// that are listed there: without its value, such a constant would be one more input to be fed.
///
/// Returns the first name that is not an output of `graph` as the error.
pub(crate) fn cut<'a>(graph: &GraphProto, outputs: &[&'a str]) -> Result<GraphProto, &'a str> {
    let mut kept_outputs = Vec::with_capacity(outputs.len());
    for &name in outputs {
        let output = graph.output.iter().find(|output| output.name() == name).ok_or(name)?;
        kept_outputs.push(output.clone());
    }
    let needed = needed_values(graph, outputs);
    let is_needed = |name: &str| needed.contains(name);
    Ok(GraphProto {
        node: graph.node.iter().filter(|node| node.output.iter().any(|o| is_needed(o))).cloned().collect(),
        initializer: graph.initializer.iter().filter(|t| is_needed(t.name())).cloned().collect(),
        sparse_initializer: graph
            .sparse_initializer
            .iter()
            .filter(|t| t.values.as_ref().is_some_and(|values| is_needed(values.name())))
            .cloned()
            .collect(),
        value_info: graph.value_info.iter().filter(|v| is_needed(v.name())).cloned().collect(),
        quantization_annotation: graph
            .quantization_annotation
            .iter()
            .filter(|a| is_needed(a.tensor_name()))
            .cloned()
            .collect(),
        output: kept_outputs,
        input: real_inputs(graph).cloned().collect(),
        name: graph.name.clone(),
        doc_string: graph.doc_string.clone(),
        metadata_props: graph.metadata_props.clone(),
    })
}

/// Every value on a path to one of `outputs`.
fn needed_values<'a>(graph: &'a GraphProto, outputs: &[&'a str]) -> HashSet<&'a str> {
    let mut producer = HashMap::new();
    for node in &graph.node {
        for output in &node.output {
            producer.insert(output.as_str(), node);
        }
    }
    let mut needed = HashSet::new();
    let mut open: Vec<&str> = outputs.to_vec();
    while let Some(name) = open.pop() {
        if name.is_empty() || !needed.insert(name) {
            continue;
        }
        if let Some(node) = producer.get(name) {
            node_inputs(node, &mut open);
        }
    }
    needed
}
