//! Operators that a model may use: those of ONNX Runtime, and functions made of them.

use std::collections::HashMap;

use super::soundness::{self, describe};
use crate::graph_inspection::{is_standard, node_subgraphs};
use crate::proto::{FunctionProto, ModelProto, NodeProto};

/// Versions of the ONNX operator set that ONNX Runtime 1.31 runs: older ones without a guarantee, newer
/// ones not at all.
const VERSIONS: std::ops::RangeInclusive<i64> = 7..=26;
/// Newest file format that ONNX Runtime 1.31 reads.
const NEWEST_IR_VERSION: i64 = 13;
/// Operators of ONNX Runtime's own, which quantisers and optimisers write.
const CONTRIBUTED: &str = "com.microsoft";
/// Functions are put in their callers' place when a session is built: more than this many nodes are no
/// network, but a file that unfolds.
const MAX_UNFOLDED_NODES: u64 = 1 << 20;
/// Functions that call functions.
const MAX_CALL_DEPTH: usize = 32;

/// Checks the versions that `model` asks for, and that every operator of it exists.
///
/// # Errors
/// Returns what is wrong, as a sentence.
pub(super) fn check(model: &ModelProto) -> Result<(), String> {
    if model.ir_version() > NEWEST_IR_VERSION {
        return Err(format!(
            "it is of ONNX IR version {}, and the newest that is read here is {NEWEST_IR_VERSION}: \
             export it for an older version of ONNX",
            model.ir_version()
        ));
    }
    check_version(model.opset_import.iter().map(|set| (set.domain(), set.version())))?;
    let mut functions = Functions { by_name: HashMap::new(), unfolded: HashMap::new() };
    for function in &model.functions {
        if is_standard(function.domain()) || function.domain() == CONTRIBUTED {
            return Err(format!("it redefines the operator `{}`", function.name()));
        }
        // What a function does not import it cannot use.
        check_version(function.opset_import.iter().map(|set| (set.domain(), set.version())))?;
        if functions.by_name.insert(Callee::from_function(function), function).is_some() {
            return Err(format!("it defines the function `{}` twice", function.name()));
        }
        soundness::check_function(function)
            .map_err(|reason| format!("in its function `{}`, {reason}", function.name()))?;
    }
    let nodes = model.graph.as_ref().map_or(&[][..], |graph| &graph.node);
    functions.count(nodes, 0).map(drop)
}

fn check_version<'a>(imports: impl Iterator<Item = (&'a str, i64)>) -> Result<(), String> {
    let versions: Vec<i64> = imports.filter(|(domain, _)| is_standard(domain)).map(|(_, version)| version).collect();
    match versions[..] {
        [version] if VERSIONS.contains(&version) => Ok(()),
        [] => Err("it does not say which version of the ONNX operators it uses".to_owned()),
        _ => Err(format!(
            "it uses version {} of the ONNX operators (opset), and {} to {} are run here: export it for one of these, \
             or convert it with onnx.version_converter",
            versions.iter().map(i64::to_string).collect::<Vec<_>>().join(" and "),
            VERSIONS.start(),
            VERSIONS.end()
        )),
    }
}

/// Identity of a function.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Callee<'a> {
    domain: &'a str,
    name: &'a str,
    overload: &'a str,
}

impl<'a> Callee<'a> {
    fn from_function(function: &'a FunctionProto) -> Self {
        Self { domain: function.domain(), name: function.name(), overload: function.overload() }
    }

    fn from_node(node: &'a NodeProto) -> Self {
        Self { domain: node.domain(), name: node.op_type(), overload: node.overload() }
    }
}

/// The functions of a model, and how many nodes each unfolds to.
struct Functions<'a> {
    by_name: HashMap<Callee<'a>, &'a FunctionProto>,
    /// `None` while a function is being counted: it is inside itself then.
    unfolded: HashMap<Callee<'a>, Option<u64>>,
}

impl<'a> Functions<'a> {
    /// Counts these nodes, with functions unfolded.
    fn count(&mut self, nodes: &'a [NodeProto], depth: usize) -> Result<u64, String> {
        let mut total = 0_u64;
        for node in nodes {
            total = total.saturating_add(self.count_node(node, depth)?);
            for inner in node_subgraphs(node) {
                total = total.saturating_add(self.count(&inner.node, depth)?);
            }
            if total > MAX_UNFOLDED_NODES {
                return Err(format!("its functions unfold to more than {MAX_UNFOLDED_NODES} nodes"));
            }
        }
        Ok(total)
    }

    fn count_node(&mut self, node: &'a NodeProto, depth: usize) -> Result<u64, String> {
        let callee = Callee::from_node(node);
        let Some(function) = self.by_name.get(&callee).copied() else {
            if is_standard(node.domain()) || node.domain() == CONTRIBUTED {
                return Ok(1);
            }
            return Err(format!(
                "{} is of the operator set `{}`, which ONNX Runtime does not come with: only operators of ONNX and of \
                 `{CONTRIBUTED}` are run here; export the model without custom operators",
                describe(node),
                node.domain()
            ));
        };
        match self.unfolded.get(&callee) {
            Some(Some(count)) => return Ok(*count),
            Some(None) => return Err(format!("its function `{}` calls itself", function.name())),
            None if depth == MAX_CALL_DEPTH => {
                return Err(format!("its functions call one another more than {MAX_CALL_DEPTH} deep: inline them"));
            }
            None => self.unfolded.insert(callee, None),
        };
        let count = self.count(&function.node, depth + 1)?.max(1);
        self.unfolded.insert(callee, Some(count));
        Ok(count)
    }
}
