//! A dictionary of a file: tensors by name, and what else is in it.

use std::collections::BTreeMap;

use crate::file::CheckpointFile;
use crate::names::Naming;
use crate::pickle::{TensorId, Value};

/// The dictionary of weights.
#[derive(Clone, Debug, Default)]
pub(crate) struct Entries<'a> {
    pub(crate) tensors: BTreeMap<&'a str, TensorId>,
    /// Keys of what is no tensor.
    pub(crate) others: Vec<String>,
}

impl<'a> Entries<'a> {
    pub(crate) fn from_value(file: &'a CheckpointFile, value: Value) -> Self {
        let mut entries = Self::default();
        for &(key, value) in file.graph().entries(value).unwrap_or_default() {
            match (file.graph().text(key), value) {
                (Some(name), Value::Tensor(id)) => drop(entries.tensors.insert(name, id)),
                _ => entries.others.push(file.key_text(key)),
            }
        }
        entries
    }

    /// Prefixes of all ResNets, and whose names they have.
    pub(crate) fn networks(&self) -> Vec<(String, Naming)> {
        let mut networks = Vec::new();
        for naming in Naming::ALL {
            let (stem, block) = (naming.rename("conv1.weight"), naming.rename("layer1.0.conv1.weight"));
            for name in self.tensors.keys() {
                if let Some(prefix) = name.strip_suffix(&stem)
                    && (prefix.is_empty() || prefix.ends_with('.'))
                    && self.tensors.contains_key(format!("{prefix}{block}").as_str())
                {
                    networks.push((prefix.to_owned(), naming));
                }
            }
        }
        networks
    }
}
