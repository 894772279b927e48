//! A graph together with the description of its outputs.

use crate::cut::cut;
use crate::manifest::Layer;
use crate::proto::GraphProto;

/// A graph with a description of its outputs, as the manifest wants it.
#[derive(Clone, Debug)]
pub struct BuiltGraph {
    /// The graph.
    pub graph: GraphProto,
    /// Its spatial outputs, finest first.
    pub layers: Vec<Layer>,
    /// Length of its `global` output, if it has one.
    pub global: Option<u32>,
}

/// Outputs were asked for that the network does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the network has no output `{name}`; it has {}", known.join(", "))]
pub struct UnknownOutput {
    /// The name that was given.
    pub name: String,
    /// The outputs of the graph.
    pub known: Vec<String>,
}

impl BuiltGraph {
    /// Name of the output that describes an image as a whole.
    pub const GLOBAL: &'static str = "global";

    /// Names of all outputs: the layers, then `global`.
    pub fn outputs(&self) -> Vec<String> {
        let global = self.global.map(|_| Self::GLOBAL.to_owned());
        self.layers.iter().map(|layer| layer.name.clone()).chain(global).collect()
    }

    /// The part of the graph that computes `outputs`, whose order does not matter.
    ///
    /// # Errors
    /// If the graph has no output of one of these names.
    pub fn keep(self, outputs: &[String]) -> Result<Self, UnknownOutput> {
        let known = self.outputs();
        if let Some(name) = outputs.iter().find(|name| !known.contains(name)) {
            return Err(UnknownOutput { name: name.clone(), known });
        }
        let kept: Vec<&str> = known.iter().filter(|name| outputs.contains(name)).map(String::as_str).collect();
        let graph =
            cut(&self.graph, &kept).map_err(|name| UnknownOutput { name: name.to_owned(), known: known.clone() })?;
        let mut layers = self.layers;
        layers.retain(|layer| kept.contains(&layer.name.as_str()));
        Ok(Self { graph, layers, global: self.global.filter(|_| kept.contains(&Self::GLOBAL)) })
    }
}
