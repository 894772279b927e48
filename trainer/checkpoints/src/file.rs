//! A file of tensors, whatever its format: told by its content, opened without reading the data.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::Path;

use crate::archive::{Archive, ArchiveError};
use crate::dtype::DType;
use crate::legacy;
use crate::open_error::OpenError;
use crate::other_content;
use crate::pickle::{
    Fault, Graph, Limits, PersistentIds, PickleError, StorageLocation, StringData, TensorId, Value, element_count, run,
};
use crate::safetensors_file;
use crate::source::{Cursor, Source};
use crate::storages::locate_storages;
use crate::tensor_data::{self, TensorDataError};

/// Format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `torch.save` since PyTorch 1.6: a zip archive.
    TorchZip,
    /// `torch.save` before PyTorch 1.6: several pickles and the storages one after the other.
    TorchLegacy,
    /// A pickle of NumPy arrays, as Detectron2 has them.
    Pickle,
    /// A header in JSON and the data.
    Safetensors,
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TorchZip => "PyTorch, zip archive",
            Self::TorchLegacy => "PyTorch, legacy stream",
            Self::Pickle => "pickle",
            Self::Safetensors => "safetensors",
        })
    }
}

/// A tensor of a file, without its data.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorInfo {
    /// Keys that lead to it from the file's root, joined by `.`.
    pub path: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Length of each axis.
    pub shape: Vec<u64>,
    id: TensorId,
}

impl TensorInfo {
    /// Number of elements.
    pub fn element_count(&self) -> u64 {
        // The count was found to be a number when the tensor was made.
        element_count(&self.shape).unwrap_or_default()
    }
}

/// A file that has been opened: what is in it is known, the data of its tensors are not read yet.
#[derive(Debug)]
pub struct CheckpointFile {
    source: Source,
    format: Format,
    graph: Graph,
    root: Value,
    /// In an archive, the entries by the position of their content.
    entries: Option<(Archive, HashMap<u64, String>)>,
    metadata: BTreeMap<String, String>,
}

impl CheckpointFile {
    /// Opens a file and tells its format by its content.
    ///
    /// # Errors
    /// If it is none of the formats, damaged, or asks for anything but tensors and plain containers.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::from_source(Source::open(path).map_err(OpenError::Io)?)
    }

    /// Opens a file that is in memory.
    ///
    /// # Errors
    /// The errors of [`CheckpointFile::open`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, OpenError> {
        Self::from_source(Source::from_bytes(bytes))
    }

    fn from_source(source: Source) -> Result<Self, OpenError> {
        let start = source.read(0, source.len().min(other_content::START))?;
        let file = if other_content::is_zip(&start) {
            Self::torch_zip(source)?
        } else if legacy::is_legacy(&start) {
            let (graph, root) = legacy::read(&source)?;
            Self::plain(source, Format::TorchLegacy, graph, root)
        } else if other_content::may_be_safetensors(&start) {
            let safetensors_file::Header { graph, root, metadata } = safetensors_file::read(&source)?;
            Self { metadata, ..Self::plain(source, Format::Safetensors, graph, root) }
        } else if start.first().is_some_and(|first| b"\x80(}]c".contains(first)) && !other_content::is_prose(&start) {
            let mut cursor = Cursor::new(&source, 0..source.len());
            let (graph, root) = run(&mut cursor, PersistentIds::Refused, Limits::DEFAULT)?;
            Self::plain(source, Format::Pickle, graph, root)
        } else {
            return Err(OpenError::Unknown(other_content::describe(&source, &start)?));
        };
        match file.root {
            Value::Foreign(id) => Err(OpenError::Whole(file.graph.foreign(id).to_owned())),
            _ => Ok(file),
        }
    }

    fn plain(source: Source, format: Format, graph: Graph, root: Value) -> Self {
        Self { source, format, graph, root, entries: None, metadata: BTreeMap::new() }
    }

    fn torch_zip(source: Source) -> Result<Self, OpenError> {
        const PICKLE: &str = "/data.pkl";
        let folder = |name: &str| name.strip_suffix(PICKLE).filter(|folder| !folder.contains('/')).map(str::to_owned);
        let names = Archive::directory_names(&source)?;
        let Some(folder) = names.iter().find_map(|name| folder(name)) else {
            return Err(OpenError::Content(other_content::describe_zip(names.iter().map(String::as_str))));
        };
        let archive = Archive::read(&source)?;
        if archive.names().any(|name| name.strip_prefix(&*folder) == Some("/constants.pkl")) {
            return Err(OpenError::Content(
                "this is a TorchScript archive, which is a program; save its state_dict() instead".to_owned(),
            ));
        }
        let byte_order = format!("{folder}/byteorder");
        if let Ok(entry) = archive.get(&byte_order)
            && source.read(entry.data.start, (entry.data.end - entry.data.start).min(16))? != b"little"
        {
            return Err(PickleError { at: entry.data.start, fault: Fault::BigEndian }.into());
        }
        let pickle = format!("{folder}{PICKLE}");
        archive.verify(&pickle, &source)?;
        let mut cursor = Cursor::new(&source, archive.get(&pickle)?.data.clone());
        let (mut graph, root) = run(&mut cursor, PersistentIds::Storages, Limits::DEFAULT)?;
        let mut names = HashMap::new();
        locate_storages(&mut graph, |key, _| {
            let name = format!("{folder}/data/{key}");
            let entry = archive.get(&name)?;
            names.insert(entry.data.start, name);
            Ok(entry.data.clone())
        })?;
        Ok(Self { entries: Some((archive, names)), ..Self::plain(source, Format::TorchZip, graph, root) })
    }

    /// Format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The remarks of a safetensors file.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Length of the file in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.source.len()
    }

    pub(crate) fn graph(&self) -> &Graph {
        &self.graph
    }

    pub(crate) fn root(&self) -> Value {
        self.root
    }

    /// Names of the classes of objects that the file holds and that are not read.
    pub fn foreign_classes(&self) -> impl Iterator<Item = &str> {
        self.graph.foreign_names()
    }

    /// Keys of the outermost dictionary.
    pub fn keys(&self) -> Vec<&str> {
        let entries = self.graph.entries(self.root).unwrap_or_default();
        entries.iter().filter_map(|&(key, _)| self.graph.text(key)).collect()
    }

    /// All tensors that the file's containers hold, however deep; each container is looked at once.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        /// Names that grow with every level would take the square of the file's length.
        const MAX_DEPTH: usize = 16;
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        let mut waiting = vec![(String::new(), self.root, 0)];
        while let Some((path, value, depth)) = waiting.pop() {
            let is_container = matches!(value, Value::Dict(_) | Value::List(_) | Value::Tuple(_));
            if is_container && (depth == MAX_DEPTH || !seen.insert(container_id(value))) {
                continue;
            }
            let first = waiting.len();
            if let Some(entries) = self.graph.entries(value) {
                let named = entries.iter().filter(|(_, value)| is_worth_a_look(*value));
                waiting.extend(
                    named.filter_map(|&(key, value)| Some((below(&path, &self.key_text(key))?, value, depth + 1))),
                );
            } else if let Some(items) = self.graph.items(value) {
                let named = items.iter().enumerate().filter(|(_, value)| is_worth_a_look(**value));
                waiting.extend(named.filter_map(|(i, &value)| Some((below(&path, &i.to_string())?, value, depth + 1))));
            } else if let Value::Tensor(id) = value
                && let Some((dtype, shape)) = self.tensor_type(id)
            {
                found.push(TensorInfo { path, dtype, shape: shape.to_vec(), id });
            }
            waiting[first..].reverse();
        }
        found
    }

    /// The elements of one of this file's tensors as float32, row by row.
    ///
    /// # Errors
    /// If they are not floating-point numbers, cannot be read, or are damaged.
    pub fn values(&self, tensor: &TensorInfo) -> Result<Vec<f32>, TensorDataError> {
        self.read_f32(tensor.id)
    }

    /// Type and shape of a tensor; `None` of an array that was never completed.
    pub(crate) fn tensor_type(&self, id: TensorId) -> Option<(DType, &[u64])> {
        let tensor = self.graph.tensor(id)?;
        Some((self.graph.storage(tensor.storage).dtype, &tensor.shape))
    }

    /// A key as a person would write it.
    pub(crate) fn key_text(&self, key: Value) -> String {
        match key {
            Value::Int(number) => number.to_string(),
            key => self.graph.text(key).unwrap_or("?").to_owned(),
        }
    }

    pub(crate) fn read_f32(&self, id: TensorId) -> Result<Vec<f32>, TensorDataError> {
        tensor_data::read_f32(&self.graph, id, &self.source)
    }

    /// Checks the stored data of these tensors against the archive's checksums, each storage once.
    ///
    /// # Errors
    /// If they are damaged.
    pub(crate) fn verify(&self, tensors: impl Iterator<Item = TensorId>) -> Result<(), ArchiveError> {
        let Some((archive, names)) = &self.entries else { return Ok(()) };
        let storages = tensors.filter_map(|id| self.graph.tensor(id)).map(|tensor| tensor.storage);
        let start = |storage| match &self.graph.storage(storage).location {
            StorageLocation::Data(StringData::Raw(range)) => Some(range.start),
            _ => None,
        };
        let starts: HashSet<u64> = storages.filter_map(start).collect();
        starts.iter().filter_map(|start| names.get(start)).try_for_each(|name| archive.verify(name, &self.source))
    }
}

/// The longest path of keys. Names share their keys in the file, but not in memory.
const MAX_PATH_BYTES: usize = 512;

/// The path of `key` below `path`, joined by `.`; `None` if it is longer than any that a tool writes.
pub(crate) fn below(path: &str, key: &str) -> Option<String> {
    match path.len() + key.len() {
        MAX_PATH_BYTES.. => None,
        _ if path.is_empty() => Some(key.to_owned()),
        _ => Some(format!("{path}.{key}")),
    }
}

/// Dictionaries are numbered apart from lists and tuples.
fn container_id(value: Value) -> (bool, u32) {
    match value {
        Value::Dict(id) => (true, id),
        Value::List(id) | Value::Tuple(id) => (false, id),
        _ => (false, u32::MAX),
    }
}

fn is_worth_a_look(value: Value) -> bool {
    matches!(value, Value::Dict(_) | Value::List(_) | Value::Tuple(_) | Value::Tensor(_))
}

#[cfg(test)]
mod tests;
