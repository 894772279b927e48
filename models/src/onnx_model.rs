//! An ONNX file together with its manifest.
//!
//! A file may come from anybody. Nothing is read that is longer than a model may be (`files`), and nothing
//! decoded before it is known what that takes (`wire`). What is decoded is checked as a whole: the operators
//! (`operator_sets`), the graph (`soundness`), its constants (`tensor_data`), and that it is what the manifest
//! says (`contract`). An [`OnnxModel`] that exists has passed all of it.

mod contract;
mod external_data;
mod files;
mod operator_sets;
mod soundness;
mod tensor_data;
mod wire;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::atomic_file::AtomicFile;
use crate::cut::cut;
use crate::float16::{Float16Error, to_float16};
use crate::graph::bare_model;
use crate::int8::is_quantized;
use crate::manifest::{MAX_MANIFEST_BYTES, Manifest, ManifestError};
use crate::proto::{GraphProto, ModelProto, StringStringEntryProto, ValueInfoProto};
use external_data::{ExternalFiles, Source};
use wire::WireError;

/// First file format whose constants need not be inputs, as they are not after a cut.
const IR_VERSION_OF_CUTS: i64 = 4;
/// The graph input that every model has: uint8 `[N, H, W, 3]`.
pub(crate) const INPUT: &str = "images";

/// The floating-point type that a graph computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// The type that models are stored in.
    #[default]
    Float32,
    /// 11 significant bits: for GPUs.
    Float16,
}

/// A model as it is stored: an ONNX graph and the manifest that describes it.
#[derive(Clone, Debug)]
pub struct OnnxModel {
    proto: ModelProto,
    manifest: Manifest,
    beside: ExternalFiles,
}

/// Why a model could not be read, cut or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read or written.
    #[error("cannot access {}", files::name_of(path))]
    Io {
        /// The file; messages say its name alone.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The file is longer than any that is read.
    #[error("{} has {bytes} bytes; at most {limit} are read", files::name_of(path))]
    FileTooLarge {
        /// The file; messages say its name alone.
        path: PathBuf,
        /// Its length, or a lower bound of it.
        bytes: u64,
        /// The maximum.
        limit: u64,
    },
    /// The bytes are not an ONNX model.
    #[error("not an ONNX file: {0}")]
    NotOnnx(String),
    /// Weights that lie in another file cannot be had.
    #[error(
        "the weights `{tensor}` lie in another file, and cannot be read: {reason}. With Python, \
         onnx.save(onnx.load(\"model.onnx\"), \"model.onnx\") puts all weights into one file"
    )]
    ExternalData {
        /// The tensor.
        tensor: String,
        /// Why its values are not there.
        reason: String,
    },
    /// The model lacks something that a served model has.
    #[error("not a model that can be served: {0}")]
    Unsuitable(String),
    /// No manifest inside the file, and no `manifest.json` beside it.
    #[error("the model has no manifest: neither `densecl.manifest` in its metadata nor a manifest.json beside it")]
    NoManifest,
    /// The manifest is there but wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The graph has no such output.
    #[error("the model has no output `{0}`")]
    UnknownOutput(String),
}

impl OnnxModel {
    /// Puts a graph and its manifest together.
    ///
    /// # Errors
    /// If the manifest is out of range or names a layer that the graph does not compute.
    pub fn new(graph: GraphProto, manifest: Manifest) -> Result<Self, ModelError> {
        Self::checked(bare_model(graph), manifest, ExternalFiles::new())
    }

    /// Opens a regular file: opening a pipe would block, and a device never ends.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open_file(path: &Path) -> Result<File, ModelError> {
        files::open(path)
    }

    /// Reads all bytes of an open file, whatever its position; `path` is its name in messages.
    ///
    /// # Errors
    /// If it cannot be read, or is longer than ONNX files can be (2 GiB).
    pub fn read_file(file: &File, path: &Path) -> Result<Bytes, ModelError> {
        files::read_open(file, path, files::MAX_MODEL_BYTES)
    }

    /// Reads a model file; a manifest that it lacks is taken from `manifest.json` beside it, and weights
    /// that it lacks from the files in the same folder that it names.
    ///
    /// # Errors
    /// If the file cannot be read, is not ONNX, or is not a model that can be served.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::decode_file(path, Self::read_file(&Self::open_file(path)?, path)?)
    }

    /// Reads a model from `bytes`, the content of the file at `path`, which it goes on sharing; what they
    /// lack is taken from the files beside that, as in [`OnnxModel::open`].
    ///
    /// # Errors
    /// The errors of [`OnnxModel::open`].
    pub fn decode_file(path: &Path, bytes: Bytes) -> Result<Self, ModelError> {
        Self::decode_file_with(path, bytes, || read_manifest(&path.with_file_name("manifest.json")))
    }

    /// Reads a model as [`OnnxModel::decode_file`] does, but calls `manifest` if the bytes hold none.
    ///
    /// # Errors
    /// The errors of [`OnnxModel::open`].
    pub fn decode_file_with(
        path: &Path,
        bytes: Bytes,
        manifest: impl FnOnce() -> Result<Option<Manifest>, ModelError>,
    ) -> Result<Self, ModelError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::decode_with(bytes, Source::Folder(folder), manifest)
    }

    /// Reads a model from memory alone, which it goes on sharing; calls `manifest` if it has none.
    ///
    /// # Errors
    /// The errors of [`OnnxModel::open`].
    pub fn decode(
        bytes: Bytes,
        manifest: impl FnOnce() -> Result<Option<Manifest>, ModelError>,
    ) -> Result<Self, ModelError> {
        Self::decode_with(bytes, Source::Nowhere, manifest)
    }

    fn decode_with(
        bytes: Bytes,
        source: Source<'_>,
        manifest: impl FnOnce() -> Result<Option<Manifest>, ModelError>,
    ) -> Result<Self, ModelError> {
        let length = bytes.len() as u64;
        let mut proto = decode_proto(bytes)?;
        let mut inside = None;
        proto.metadata_props.retain_mut(|entry| {
            let is_manifest = entry.key() == Manifest::METADATA_KEY;
            if is_manifest {
                inside = entry.value.take();
            }
            !is_manifest
        });
        let manifest = match inside {
            Some(json) => Manifest::from_json(&json)?,
            None => manifest()?.ok_or(ModelError::NoManifest)?,
        };
        let beside = match &mut proto.graph {
            Some(graph) => external_data::embed(graph, source, length)?,
            None => ExternalFiles::new(),
        };
        Self::checked(proto, manifest, beside)
    }

    /// The description of the model.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Files beside the model's that its weights were read from: their names in the model, and their content.
    /// They are a part of the model.
    pub fn external_files(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.beside.iter().map(|(name, content)| (name.as_str(), content))
    }

    /// Names of the graph's outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph().output.iter().map(ValueInfoProto::name)
    }

    /// ONNX bytes of the part of the graph that computes `outputs`, in that order, for pictures of any
    /// size. Inputs and outputs keep their types whatever the `precision` between them. A graph that computes in
    /// integers goes on doing so: there is little left in it for float16.
    ///
    /// # Errors
    /// If the graph has no output of one of these names, or cannot be computed in float16.
    pub fn cut(&self, outputs: &[&str], precision: Precision) -> Result<Vec<u8>, ModelError> {
        let mut graph = cut(self.graph(), outputs).map_err(|name| ModelError::UnknownOutput(name.to_owned()))?;
        contract::loosen_size(&mut graph);
        let graph = match precision {
            Precision::Float32 => graph,
            Precision::Float16 if is_quantized(&graph) => graph,
            Precision::Float16 => to_float16(graph).map_err(|error| match error {
                Float16Error::Operator(name) => unsuitable(&format!("operator `{name}` is not run in float16 here")),
                Float16Error::Range(name) => unsuitable(&format!("`{name}` is too large for float16")),
            })?,
        };
        let header = header_of(&self.proto);
        let ir_version = Some(header.ir_version().max(IR_VERSION_OF_CUTS));
        Ok(ModelProto { graph: Some(graph), ir_version, ..header }.encode_to_vec())
    }

    /// The whole file, manifest included.
    ///
    /// # Errors
    /// If the manifest cannot be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, ModelError> {
        let json = serde_json::to_string(&self.manifest).map_err(ManifestError::from)?;
        let entry = StringStringEntryProto { key: Some(Manifest::METADATA_KEY.to_owned()), value: Some(json) };
        let mut header = header_of(&self.proto);
        header.metadata_props.push(entry);
        Ok(ModelProto { graph: self.proto.graph.clone(), ..header }.encode_to_vec())
    }

    /// Writes the file as [`atomic_file`](crate::atomic_file) does: a reader never sees half of it.
    ///
    /// # Errors
    /// If the folder cannot be made or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        self.save_if(path, |_| Ok(()))
    }

    /// Writes the file as [`OnnxModel::save`] does, if `check` accepts it under its temporary name. If not, the file
    /// is deleted and what was at `path` is as it was.
    ///
    /// # Errors
    /// If the folder cannot be made, the file cannot be written, or `check` returns an error.
    pub fn save_if<E: From<ModelError>>(
        &self,
        path: &Path,
        check: impl FnOnce(&Path) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = self.encode()?;
        let failed = |source| ModelError::Io { path: path.to_owned(), source };
        let mut file = AtomicFile::create(path).map_err(failed)?;
        file.write_all(&bytes).map_err(failed)?;
        check(file.temporary_path())?;
        Ok(file.commit().map_err(failed)?)
    }

    fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`checked` refuses a model without a graph")
    }

    fn checked(proto: ModelProto, manifest: Manifest, beside: ExternalFiles) -> Result<Self, ModelError> {
        manifest.check()?;
        let Some(graph) = &proto.graph else {
            return Err(unsuitable("the file holds no graph"));
        };
        operator_sets::check(&proto).and_then(|()| soundness::check(graph)).map_err(|reason| unsuitable(&reason))?;
        contract::check(graph, &manifest).map_err(|reason| unsuitable(&reason))?;
        Ok(Self { proto, manifest, beside })
    }
}

fn decode_proto(bytes: Bytes) -> Result<ModelProto, ModelError> {
    if bytes.starts_with(b"version https://git-lfs") {
        let reason = "it is the pointer that Git LFS leaves in a file's place; `git lfs pull` fetches the file";
        return Err(ModelError::NotOnnx(reason.to_owned()));
    }
    wire::check(&bytes).map_err(|error| match error {
        WireError::Malformed { .. } => ModelError::NotOnnx(error.to_string()),
        WireError::TooDeep | WireError::TooMuchStructure => unsuitable(&error.to_string()),
    })?;
    ModelProto::decode(bytes).map_err(|error| ModelError::NotOnnx(error.to_string()))
}

/// The manifest at `path`, if there is one.
fn read_manifest(path: &Path) -> Result<Option<Manifest>, ModelError> {
    match files::read(path, MAX_MANIFEST_BYTES) {
        Ok(json) => {
            let json = std::str::from_utf8(&json).map_err(ManifestError::NotText)?;
            Ok(Some(Manifest::from_json(json)?))
        }
        Err(ModelError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Names in a reason come from the file: they may be as long as that, and hold what no terminal should see.
fn unsuitable(reason: &str) -> ModelError {
    const MOST: usize = 600;
    let printable = reason.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c });
    let more = if reason.chars().count() > MOST { "…" } else { "" };
    ModelError::Unsuitable(printable.take(MOST).chain(more.chars()).collect())
}

/// Everything but the graph, without cloning that.
fn header_of(model: &ModelProto) -> ModelProto {
    ModelProto {
        ir_version: model.ir_version,
        producer_name: model.producer_name.clone(),
        producer_version: model.producer_version.clone(),
        domain: model.domain.clone(),
        model_version: model.model_version,
        doc_string: model.doc_string.clone(),
        graph: None,
        opset_import: model.opset_import.clone(),
        metadata_props: model.metadata_props.clone(),
        functions: model.functions.clone(),
    }
}

#[cfg(test)]
mod tests;
