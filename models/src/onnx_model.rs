//! An ONNX file together with its manifest.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
use tempfile::NamedTempFile;

use crate::cut::cut;
use crate::float16::{Float16Error, to_float16};
use crate::int8::is_quantized;
use crate::manifest::{Manifest, ManifestError};
use crate::proto::{
    GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, ValueInfoProto, tensor_proto,
    type_proto,
};

/// Operator set that [`OnnxModel::new`] writes; ONNX Runtime has run it since 1.12.
const OPSET: i64 = 17;
/// File format that goes with [`OPSET`].
const IR_VERSION: i64 = 8;
/// The graph input that every model has: uint8 `[N, H, W, 3]`.
pub(crate) const INPUT: &str = "images";

/// The floating-point type that a graph computes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// As the models are made.
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
}

/// Why a model could not be read, cut or written.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The file cannot be read or written.
    #[error("cannot access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The bytes are not an ONNX model.
    #[error("not an ONNX file")]
    NotOnnx(#[source] prost::DecodeError),
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
        let proto = bare_model(graph);
        Self { proto, manifest }.checked()
    }

    /// Reads a model file; a manifest that it lacks is taken from `manifest.json` beside it.
    ///
    /// # Errors
    /// If the file cannot be read, is not ONNX, or is not a model that can be served.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let bytes = fs::read(path).map_err(|source| ModelError::Io { path: path.to_owned(), source })?;
        Self::decode_file(path, bytes.into())
    }

    /// Reads a model from `bytes`, the content of the file at `path`; a manifest that it lacks is
    /// taken from `manifest.json` beside that.
    ///
    /// # Errors
    /// As for [`OnnxModel::open`].
    pub fn decode_file(path: &Path, bytes: Bytes) -> Result<Self, ModelError> {
        Self::decode(bytes, || {
            let beside = path.with_file_name("manifest.json");
            match fs::read_to_string(&beside) {
                Ok(json) => Ok(Some(Manifest::from_json(&json)?)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(ModelError::Io { path: beside, source }),
            }
        })
    }

    /// Reads a model from memory, which it goes on sharing; `manifest` is asked if it has none.
    ///
    /// # Errors
    /// As for [`OnnxModel::open`].
    pub fn decode(
        bytes: Bytes,
        manifest: impl FnOnce() -> Result<Option<Manifest>, ModelError>,
    ) -> Result<Self, ModelError> {
        let mut proto = ModelProto::decode(bytes).map_err(ModelError::NotOnnx)?;
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
        Self { proto, manifest }.checked()
    }

    /// What the model says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names of the graph's outputs.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.graph().output.iter().map(ValueInfoProto::name)
    }

    /// ONNX bytes of the part of the graph that computes `outputs`, in that order. Inputs and
    /// outputs keep their types whatever the `precision` between them. A graph that computes in
    /// integers goes on doing so: there is little left in it for float16.
    ///
    /// # Errors
    /// If the graph has no output of one of these names, or cannot be computed in float16.
    pub fn cut(&self, outputs: &[&str], precision: Precision) -> Result<Vec<u8>, ModelError> {
        let graph = cut(self.graph(), outputs).map_err(|name| ModelError::UnknownOutput(name.to_owned()))?;
        let graph = match precision {
            Precision::Float32 => graph,
            Precision::Float16 if is_quantized(&graph) => graph,
            Precision::Float16 => to_float16(graph).map_err(|error| match error {
                Float16Error::Operator(name) => {
                    ModelError::Unsuitable(format!("operator `{name}` is not run in float16 here"))
                }
                Float16Error::Range(name) => ModelError::Unsuitable(format!("`{name}` is too large for float16")),
            })?,
        };
        let header = ModelProto { graph: None, ..header_of(&self.proto) };
        Ok(ModelProto { graph: Some(graph), ..header }.encode_to_vec())
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

    /// Writes the file beside its place and renames it there, so that a reader never sees half.
    ///
    /// # Errors
    /// If the folder cannot be made or the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        self.save_if(path, |_| Ok(()))
    }

    /// As [`OnnxModel::save`], once `check` has approved of the file while it still lies beside its
    /// place; if it has not, nothing remains.
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
        let aside = write_aside(path, &bytes).map_err(failed)?;
        check(aside.path())?;
        aside.persist(path).map_err(|error| failed(error.error))?;
        Ok(())
    }

    fn graph(&self) -> &GraphProto {
        self.proto.graph.as_ref().expect("`checked` refuses a model without a graph")
    }

    fn checked(self) -> Result<Self, ModelError> {
        let unsuitable = |reason: String| Err(ModelError::Unsuitable(reason));
        self.manifest.check()?;
        let Some(graph) = &self.proto.graph else {
            return unsuitable("the file holds no graph".to_owned());
        };
        let is_external = |tensor: &TensorProto| tensor.data_location() == tensor_proto::DataLocation::External;
        if let Some(tensor) = graph.initializer.iter().find(|tensor| is_external(tensor)) {
            return unsuitable(format!("`{}` lies outside the file", tensor.name()));
        }
        // Old exporters list initializers among the inputs.
        let mut inputs = graph.input.iter().filter(|i| graph.initializer.iter().all(|t| t.name() != i.name()));
        let input = inputs.next();
        if inputs.next().is_some() || !input.is_some_and(is_images) {
            return unsuitable(format!("its one input must be `{INPUT}`, uint8 [N, H, W, 3]"));
        }
        for layer in &self.manifest.layers {
            if graph.output.iter().all(|output| output.name() != layer.name) {
                return unsuitable(format!(
                    "the manifest names layer `{}`, which the graph does not output",
                    layer.name
                ));
            }
        }
        Ok(self)
    }
}

fn is_images(input: &ValueInfoProto) -> bool {
    let tensor = input.r#type.as_ref().and_then(|t| t.value.as_ref());
    let Some(type_proto::Value::TensorType(tensor)) = tensor else { return false };
    let rank = tensor.shape.as_ref().map(|shape| shape.dim.len());
    input.name() == INPUT && tensor.elem_type() == tensor_proto::DataType::Uint8 as i32 && rank == Some(4)
}

/// A graph as a file's content, without a manifest.
pub(crate) fn bare_model(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("densecl".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) }],
        ..ModelProto::default()
    }
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

/// A file in the folder of `path` that goes away again if it is not renamed.
fn write_aside(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut aside = tempfile::Builder::new().prefix(".model-").permissions(readable()).tempfile_in(folder)?;
    aside.write_all(bytes)?;
    aside.as_file().sync_all()?;
    Ok(aside)
}

/// A temporary file is private by default; a model is for the server's user to read.
#[cfg(unix)]
fn readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}
