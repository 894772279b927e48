//! A graph that hangs together: every value has one maker, and nothing waits for itself.
//!
//! ONNX Runtime finds most of this, too, when it builds a session. Here it is found when the model is
//! read, and before the graph is cut.

use std::collections::{HashMap, HashSet};

use super::tensor_data;
use crate::graph_inspection::{node_inputs, node_subgraphs};
use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Checks `graph` and the graphs inside it.
///
/// # Errors
/// Returns what is wrong, as a sentence.
pub(super) fn check(graph: &GraphProto) -> Result<(), String> {
    check_within(graph, &Scope { names: HashSet::new(), outer: None })
}

/// Checks the body of a function as if it were a graph.
///
/// # Errors
/// Returns what is wrong, as a sentence.
pub(super) fn check_function(function: &FunctionProto) -> Result<(), String> {
    let value = |name: &String| ValueInfoProto { name: Some(name.clone()), ..ValueInfoProto::default() };
    check(&GraphProto {
        node: function.node.clone(),
        input: function.input.iter().map(value).collect(),
        output: function.output.iter().map(value).collect(),
        ..GraphProto::default()
    })
}

/// Name of a node in messages.
pub(super) fn describe(node: &NodeProto) -> String {
    let name = Some(node.name()).filter(|name| !name.is_empty());
    let name = name.or_else(|| node.output.first().map(String::as_str)).unwrap_or_default();
    format!("node `{name}` ({})", node.op_type())
}

/// Names that a node may read.
struct Scope<'a> {
    names: HashSet<&'a str>,
    outer: Option<&'a Scope<'a>>,
}

impl Scope<'_> {
    fn holds(&self, name: &str) -> bool {
        self.names.contains(name) || self.outer.is_some_and(|outer| outer.holds(name))
    }
}

fn check_within<'a>(graph: &'a GraphProto, outer: &'a Scope<'a>) -> Result<(), String> {
    if !graph.sparse_initializer.is_empty() {
        return Err("it holds sparse constants: store them as dense ones".to_owned());
    }
    for tensor in &graph.initializer {
        tensor_data::check(tensor).map_err(|reason| format!("the constant `{}` {reason}", tensor.name()))?;
    }
    let scope = Scope { names: names(graph, outer)?, outer: Some(outer) };
    for node in &graph.node {
        if let Some(unknown) = node.input.iter().find(|name| !name.is_empty() && !scope.holds(name)) {
            return Err(format!("{} reads `{unknown}`, which nothing computes", describe(node)));
        }
        for attribute in &node.attribute {
            check_attribute(attribute).map_err(|reason| format!("{}: {reason}", describe(node)))?;
        }
        node_subgraphs(node).try_for_each(|inner| check_within(inner, &scope))?;
    }
    for output in &graph.output {
        if !scope.holds(output.name()) {
            return Err(format!("nothing computes the output `{}`", output.name()));
        }
    }
    check_order(&graph.node)
}

/// All values of `graph`, each of which has one maker, here and further out.
fn names<'a>(graph: &'a GraphProto, outer: &Scope<'_>) -> Result<HashSet<&'a str>, String> {
    let mut names = HashSet::new();
    let mut add = |name: &'a str| {
        if name.is_empty() || !names.insert(name) || outer.holds(name) {
            return Err(format!("more than one value is called `{name}`, or it has no name: values need one each"));
        }
        Ok(())
    };
    graph.initializer.iter().try_for_each(|tensor| add(tensor.name()))?;
    let constants: HashSet<&str> = graph.initializer.iter().map(TensorProto::name).collect();
    // Old files list constants among the inputs.
    let inputs = graph.input.iter().map(ValueInfoProto::name).filter(|name| !constants.contains(name));
    inputs.chain(made_by(&graph.node)).try_for_each(add)?;
    Ok(names)
}

/// The values that nodes compute; an output that nobody wants has no name.
fn made_by(nodes: &[NodeProto]) -> impl Iterator<Item = &str> {
    nodes.iter().flat_map(|node| &node.output).map(String::as_str).filter(|name| !name.is_empty())
}

fn check_attribute(attribute: &AttributeProto) -> Result<(), String> {
    if attribute.sparse_tensor.is_some() || !attribute.sparse_tensors.is_empty() {
        return Err("sparse constants are not read here: store them as dense ones".to_owned());
    }
    for tensor in attribute.t.as_deref().into_iter().chain(&attribute.tensors) {
        tensor_data::check(tensor).map_err(|reason| format!("its constant `{}` {reason}", attribute.name()))?;
    }
    Ok(())
}

/// Nodes can be put in an order in which each comes after what it reads. They need not be in it.
fn check_order(nodes: &[NodeProto]) -> Result<(), String> {
    let mut maker = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        maker.extend(node.output.iter().map(|output| (output.as_str(), index)));
    }
    let mut readers = vec![Vec::new(); nodes.len()];
    let mut waits_for = vec![0_usize; nodes.len()];
    let mut inputs = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        inputs.clear();
        node_inputs(node, &mut inputs);
        for made in inputs.iter().filter(|name| !name.is_empty()).filter_map(|name| maker.get(name)) {
            readers[*made].push(index);
            waits_for[index] += 1;
        }
    }
    let mut ready: Vec<usize> = (0..nodes.len()).filter(|index| waits_for[*index] == 0).collect();
    while let Some(done) = ready.pop() {
        for &reader in &readers[done] {
            waits_for[reader] -= 1;
            if waits_for[reader] == 0 {
                ready.push(reader);
            }
        }
    }
    match waits_for.iter().position(|waits| *waits > 0) {
        Some(stuck) => {
            Err(format!("{} needs its own result: the graph goes round in a circle", describe(&nodes[stuck])))
        }
        None => Ok(()),
    }
}
