//! The operators that compute in integers, and the values that are rounded for them.

use std::collections::{HashMap, HashSet};

use crate::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Operators and values that quantising changes.
pub(super) struct Plan<'a> {
    /// Values that are rounded, in the order of computation, with the value whose range they share:
    /// their own name, or, of a maximum, its input's.
    rounded: Vec<(&'a str, &'a str)>,
    source_of: HashMap<&'a str, &'a str>,
    /// Rounded values that only integer operators need: all operators read them rounded.
    only_rounded: HashSet<&'a str>,
    /// First output of each operator that computes in integers.
    integer: HashSet<&'a str>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(graph: &'a GraphProto) -> Self {
        let reader = Reader::new(graph);
        let mut plan = Self {
            rounded: Vec::new(),
            source_of: HashMap::new(),
            only_rounded: HashSet::new(),
            integer: HashSet::new(),
        };
        // Nothing to gain where no convolution computes in integers.
        if !graph.node.iter().any(|node| reader.is_integer_convolution(node)) {
            return plan;
        }
        for node in &graph.node {
            let Some(output) = node.output.first() else { continue };
            match node.op_type() {
                "Conv" if reader.is_integer_convolution(node) => {
                    plan.round(&node.input[0]);
                    plan.integer.insert(output);
                    let activation = reader.activation(output);
                    plan.round(activation);
                    plan.only_rounded.insert(activation);
                }
                "Add" if node.input.iter().all(|input| !reader.constants.contains(input.as_str())) => {
                    node.input.iter().for_each(|input| plan.round(input));
                    plan.integer.insert(output);
                }
                // The greatest of rounded values is the rounded greatest value.
                "MaxPool" => {
                    let Some(input) = node.input.first() else { continue };
                    plan.round(input);
                    plan.integer.insert(output);
                    let source = plan.source_of[input.as_str()];
                    plan.round_like(output, source);
                    plan.only_rounded.insert(output);
                }
                _ => {}
            }
        }
        plan
    }

    /// Values whose own ranges are needed.
    pub(super) fn measured(&self) -> impl Iterator<Item = &'a str> {
        self.rounded.iter().filter(|(value, source)| value == source).map(|(value, _)| *value)
    }

    pub(super) fn is_integer(&self, node: &NodeProto) -> bool {
        node.output.first().is_some_and(|output| self.integer.contains(output.as_str()))
    }

    /// The value whose range `value` is rounded with, if it is rounded.
    pub(super) fn source(&self, value: &str) -> Option<&'a str> {
        self.source_of.get(value).copied()
    }

    /// Returns whether an operator reads `value` in its rounded form.
    pub(super) fn reads_rounded(&self, node: &NodeProto, value: &str) -> bool {
        self.source(value).is_some() && (self.is_integer(node) || self.only_rounded.contains(value))
    }

    fn round(&mut self, value: &'a str) {
        self.round_like(value, value);
    }

    fn round_like(&mut self, value: &'a str, source: &'a str) {
        if !self.source_of.contains_key(value) {
            self.source_of.insert(value, source);
            self.rounded.push((value, source));
        }
    }
}

/// Constants, outputs and readers of a graph's values.
struct Reader<'a> {
    constants: HashSet<&'a str>,
    outputs: HashSet<&'a str>,
    readers: HashMap<&'a str, Vec<&'a NodeProto>>,
}

impl<'a> Reader<'a> {
    fn new(graph: &'a GraphProto) -> Self {
        let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        for node in &graph.node {
            for input in &node.input {
                readers.entry(input).or_default().push(node);
            }
        }
        let constants = graph.initializer.iter().map(TensorProto::name).collect();
        Self { constants, outputs: graph.output.iter().map(ValueInfoProto::name).collect(), readers }
    }

    /// A convolution with constants, whose result is not an output: an output would be rounded.
    fn is_integer_convolution(&self, node: &NodeProto) -> bool {
        let constant = |name: &String| self.constants.contains(name.as_str());
        let Some(output) = node.output.first() else { return false };
        node.op_type() == "Conv"
            && node.input.len() == 3
            && node.input[1..].iter().all(constant)
            && !self.outputs.contains(self.activation(output))
            && !self.outputs.contains(output.as_str())
    }

    /// The result of the ReLU behind `value` if nothing else reads it; else `value` itself.
    fn activation(&self, value: &'a str) -> &'a str {
        match self.readers.get(value).map(Vec::as_slice) {
            Some([relu]) if relu.op_type() == "Relu" => relu.output.first().map_or(value, String::as_str),
            _ => value,
        }
    }
}
