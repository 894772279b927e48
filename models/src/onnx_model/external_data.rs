//! Reads weights that lie in files beside the model's file.
//!
//! Exporters write such files for networks of more than 2 GiB, and some for any network. A model that is
//! served is cut and handed over as one, so their content is shared by the tensors from here on.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;

use super::ModelError;
use super::files::{self, MAX_MODEL_BYTES};
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{AttributeProto, GraphProto, NodeProto, StringStringEntryProto, TensorProto};

/// The files beside a model that hold its weights, by their names in it.
pub(super) type ExternalFiles = BTreeMap<String, Bytes>;

/// Where the weights of a model may lie.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// In the model alone.
    Nowhere,
    /// In files of this folder too.
    Folder(&'a Path),
}

/// Reads the values that `graph`'s tensors lack; together with the `model_bytes` they must fit into one file.
pub(super) fn embed(graph: &mut GraphProto, source: Source<'_>, model_bytes: u64) -> Result<ExternalFiles, ModelError> {
    let mut files = Files { source, read: ExternalFiles::new(), room: MAX_MODEL_BYTES.saturating_sub(model_bytes) };
    for_each_tensor(graph, &mut |tensor| files.fill(tensor))?;
    Ok(files.read)
}

struct Files<'a> {
    source: Source<'a>,
    read: ExternalFiles,
    /// Bytes that may still be read.
    room: u64,
}

impl Files<'_> {
    fn fill(&mut self, tensor: &mut TensorProto) -> Result<(), ModelError> {
        if tensor.data_location() != DataLocation::External {
            return Ok(());
        }
        let name = tensor.name().to_owned();
        let wrong = |reason: String| ModelError::ExternalData { tensor: name.clone(), reason };
        let entries = &tensor.external_data;
        let entry = |key: &str| entries.iter().find(|entry| entry.key() == key).map(StringStringEntryProto::value);
        let number = |key: &str| match entry(key).map(str::parse::<usize>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(wrong(format!("its {key} is not a number of bytes"))),
        };
        let location = entry("location").ok_or_else(|| wrong("it does not say in which file".to_owned()))?;
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        let file = self.file(location, &wrong)?;
        let end = length.map_or(Some(file.len()), |length| offset.checked_add(length));
        let Some(end) = end.filter(|end| offset <= *end && *end <= file.len()) else {
            return Err(wrong(format!("it ends behind the {} bytes of `{location}`", file.len())));
        };
        tensor.raw_data = Some(file.slice(offset..end));
        tensor.external_data.clear();
        tensor.data_location = None;
        Ok(())
    }

    fn file(&mut self, location: &str, wrong: &dyn Fn(String) -> ModelError) -> Result<Bytes, ModelError> {
        if let Some(file) = self.read.get(location) {
            return Ok(file.clone());
        }
        let Source::Folder(folder) = self.source else {
            return Err(wrong("only the model's own bytes are there".to_owned()));
        };
        let path = files::inside(folder, location).map_err(|reason| wrong(format!("of `{location}`: {reason}")))?;
        let file = files::read(&path, self.room)?;
        self.room -= file.len() as u64;
        self.read.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

/// Every tensor of a graph: constants, attributes, and those of the graphs inside it.
fn for_each_tensor<E>(
    graph: &mut GraphProto,
    visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>,
) -> Result<(), E> {
    graph.initializer.iter_mut().try_for_each(&mut *visit)?;
    attributes(&mut graph.node, visit)
}

fn attributes<E>(nodes: &mut [NodeProto], visit: &mut dyn FnMut(&mut TensorProto) -> Result<(), E>) -> Result<(), E> {
    for attribute in nodes.iter_mut().flat_map(|node| &mut node.attribute) {
        let AttributeProto { t, tensors, g, graphs, .. } = attribute;
        t.as_deref_mut().into_iter().chain(tensors).try_for_each(&mut *visit)?;
        for graph in g.as_deref_mut().into_iter().chain(graphs) {
            for_each_tensor(graph, visit)?;
        }
    }
    Ok(())
}
