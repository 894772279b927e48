//! The models that are served, by name and version.
//!
//! A [`Registry`] is opened once from a repository on disk: every file in it must be a model, and
//! the default layer of every model's newest version is run once before the server is ready, so
//! that a broken file is found at start and not by the first user.
//!
//! It holds manifests and paths, never weights; those are the engine's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use densecl_models::repository::{self, ModelVersion, RepositoryError};
use densecl_models::{Layer, Manifest, ModelError, OnnxModel};
use sha2::{Digest, Sha256};

use crate::batch::{BatchError, BatchReply, BatchRequest, Batcher};
pub use crate::engine::Provider;
use crate::engine::{LayerSet, ModelFile};

/// Both sides of what a model sees are multiples of this.
const CELL_MULTIPLE_PX: usize = 32;

/// Everything that can be asked for.
pub struct Registry {
    models: BTreeMap<String, BTreeMap<u32, ServedModel>>,
    batcher: Batcher,
}

/// One version of a model, ready to run.
#[derive(Clone)]
pub struct ServedModel {
    file: ModelFile,
    manifest: Arc<Manifest>,
    batcher: Batcher,
}

/// The repository cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be listed, or is empty.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file in it is not a model.
    #[error("cannot load the model {path}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ModelError,
    },
    /// No model has the layers that were to be rehearsed.
    #[error("no model has the layers `{layers}` that are to be rehearsed")]
    Rehearsal {
        /// The layers.
        layers: String,
    },
    /// A model does not run.
    #[error("the model {path} does not run")]
    WarmUp {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: BatchError,
    },
}

/// Layers that are run before the first request asks for them, so that it need not wait for their
/// sessions to be built. Written `LAYER` or `LAYER@SIDE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// One layer, or several joined by `+`.
    pub layers: String,
    /// The longer side, in pixels; the manifest's default if `None`.
    pub side_px: Option<u32>,
}

/// A rehearsal that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not LAYER or LAYER@SIDE, such as res4 or res3+res4@512")]
pub struct RehearsalParseError(String);

impl FromStr for Rehearsal {
    type Err = RehearsalParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || RehearsalParseError(text.to_owned());
        let (layers, side) = text.split_once('@').map_or((text, None), |(layers, side)| (layers, Some(side)));
        let side_px = side.map(|side| side.parse().map_err(|_| wrong())).transpose()?;
        let is_sensible = !layers.is_empty() && side_px.is_none_or(|side| (32..=16_384).contains(&side));
        is_sensible.then(|| Self { layers: layers.to_owned(), side_px }).ok_or_else(wrong)
    }
}

/// Something was asked for that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No model of this name.
    #[error("there is no model `{name}`; the models are: {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The model has no such version.
    #[error("model `{name}` has no version {version}; its versions are: {known}")]
    UnknownVersion {
        /// The model.
        name: String,
        /// What was asked for.
        version: u32,
        /// What there is.
        known: String,
    },
    /// The model has no such layer.
    #[error("model `{name}` has no layer `{layer}`; its layers are: {known}")]
    UnknownLayer {
        /// The model.
        name: String,
        /// What was asked for.
        layer: String,
        /// What there is.
        known: String,
    },
    /// A hypercolumn names a layer twice.
    #[error("`{layers}` names a layer more than once")]
    RepeatedLayer {
        /// What was asked for.
        layers: String,
    },
}

impl Registry {
    /// Reads every manifest below `root` and runs the newest version of each model once: its
    /// default layer, and those of `rehearsals` that it has.
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: &Path, batcher: Batcher, rehearsals: &[Rehearsal]) -> Result<Self, OpenError> {
        let mut models: BTreeMap<String, BTreeMap<u32, ServedModel>> = BTreeMap::new();
        for found in repository::scan(root)? {
            let version = found.version;
            let name = found.name.clone();
            models.entry(name).or_default().insert(version, ServedModel::open(found, &batcher)?);
        }
        let registry = Self { models, batcher };
        for newest in registry.newest() {
            newest.rehearse(&Rehearsal { layers: newest.manifest.default_layer.clone(), side_px: None })?;
        }
        for rehearsal in rehearsals {
            let mut able = registry.newest().filter(|model| model.layers(Some(&rehearsal.layers)).is_ok()).peekable();
            if able.peek().is_none() {
                return Err(OpenError::Rehearsal { layers: rehearsal.layers.clone() });
            }
            able.try_for_each(|model| model.rehearse(rehearsal))?;
        }
        Ok(registry)
    }

    /// The model of this name and version; the first model and its newest version if not given.
    ///
    /// # Errors
    /// If there is none, with what there is.
    pub fn find(&self, name: Option<&str>, version: Option<u32>) -> Result<&ServedModel, LookupError> {
        let (name, versions) = match name {
            Some(name) => self.models.get_key_value(name),
            None => self.models.first_key_value(),
        }
        .ok_or_else(|| LookupError::UnknownModel {
            name: name.unwrap_or_default().to_owned(),
            known: listed(self.models.keys()),
        })?;
        let found = match version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, newest)| newest),
        };
        found.ok_or_else(|| LookupError::UnknownVersion {
            name: name.clone(),
            version: version.unwrap_or_default(),
            known: listed(versions.keys()),
        })
    }

    /// All versions of all models, by name and ascending version.
    pub fn all(&self) -> impl Iterator<Item = &ServedModel> {
        self.models.values().flat_map(BTreeMap::values)
    }

    /// What the models really run on: one entry for each engine.
    pub fn providers(&self) -> &[Provider] {
        self.batcher.providers()
    }

    /// How long an image that came now would wait for its turn.
    pub fn predicted_wait(&self) -> Duration {
        self.batcher.predicted_wait()
    }

    fn newest(&self) -> impl Iterator<Item = &ServedModel> {
        self.models.values().filter_map(|versions| versions.last_key_value().map(|(_, newest)| newest))
    }
}

impl ServedModel {
    fn open(found: ModelVersion, batcher: &Batcher) -> Result<Self, OpenError> {
        let ModelVersion { name, version, path } = found;
        let read = || {
            let bytes = fs::read(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
            let digest = Sha256::digest(&bytes).into();
            Ok((OnnxModel::decode_file(&path, bytes.into())?.manifest().clone(), digest))
        };
        let (manifest, digest) = match read() {
            Ok((manifest, digest)) => (Arc::new(manifest), digest),
            Err(source) => return Err(OpenError::Model { path, source }),
        };
        let file = ModelFile { name: name.into(), version, path: path.into(), digest };
        Ok(Self { file, manifest, batcher: batcher.clone() })
    }

    /// Its name in the repository.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.file.version
    }

    /// SHA-256 of its file.
    pub fn digest(&self) -> &[u8; 32] {
        &self.file.digest
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The layers named by `names`, one or several joined by `+`; the default layer if not given.
    ///
    /// # Errors
    /// If the model has no such layer, or one is named twice.
    pub fn layers(&self, names: Option<&str>) -> Result<LayerSet, LookupError> {
        let joined = names.unwrap_or(&self.manifest.default_layer);
        for layer in joined.split('+') {
            if self.manifest.layer(layer).is_none() {
                return Err(LookupError::UnknownLayer {
                    name: self.name().to_owned(),
                    layer: layer.to_owned(),
                    known: listed(self.manifest.layers.iter().map(|Layer { name, .. }| name)),
                });
            }
        }
        LayerSet::new(joined.split('+')).ok_or_else(|| LookupError::RepeatedLayer { layers: joined.to_owned() })
    }

    /// Computes layers of one image. Dropping the future takes the request out of the queue.
    ///
    /// # Errors
    /// If the queue is full, the deadline passes or the engine fails.
    pub async fn run(&self, image: ModelInput, layers: LayerSet, deadline: Instant) -> Result<BatchReply, BatchError> {
        let receiver = self.batcher.submit(self.request(image, layers, deadline))?;
        receiver.await.unwrap_or(Err(BatchError::Closed))
    }

    /// As [`ServedModel::run`], for threads that may wait.
    ///
    /// # Errors
    /// As for [`ServedModel::run`].
    pub fn run_blocking(
        &self,
        image: ModelInput,
        layers: LayerSet,
        deadline: Instant,
    ) -> Result<BatchReply, BatchError> {
        let receiver = self.batcher.submit(self.request(image, layers, deadline))?;
        receiver.blocking_recv().unwrap_or(Err(BatchError::Closed))
    }

    fn request(&self, image: ModelInput, layers: LayerSet, deadline: Instant) -> BatchRequest {
        let ModelInput { height, width, rgb } = image;
        BatchRequest { model: self.file.clone(), layers, height, width, rgb, deadline }
    }

    /// Runs layers that the model has on every engine: it builds the sessions and touches every
    /// kernel and all the memory that usual requests need.
    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), OpenError> {
        let failed = |source| OpenError::WarmUp { path: self.file.path.to_path_buf(), source };
        let layers = LayerSet::new(rehearsal.layers.split('+')).expect("layers that the model has, each once");
        let size = usual_size(rehearsal.side_px.unwrap_or(self.manifest.default_side));
        self.batcher.warm_up(&self.file, &layers, size).map_err(failed)
    }
}

/// Height and width of what the model sees of a photograph of 4:3 whose longer side becomes `side_px`.
fn usual_size(side_px: u32) -> (usize, usize) {
    let cells = |pixels: usize| pixels.div_ceil(CELL_MULTIPLE_PX).max(1) * CELL_MULTIPLE_PX;
    let longer = side_px as usize;
    (cells(longer * 3 / 4), cells(longer))
}

/// An image at the size that the model is to see.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// In pixels, a multiple of the coarsest stride.
    pub height: usize,
    /// In pixels, a multiple of the coarsest stride.
    pub width: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

fn listed<T: ToString>(names: impl Iterator<Item = T>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rehearsals_name_layers_and_a_side() {
        let read = |text: &str| text.parse::<Rehearsal>().ok();
        assert_eq!(read("res3+res4@512"), Some(Rehearsal { layers: "res3+res4".to_owned(), side_px: Some(512) }));
        assert_eq!(read("res5"), Some(Rehearsal { layers: "res5".to_owned(), side_px: None }));
        for wrong in ["", "@512", "res5@", "res5@x", "res5@8"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_usual_photograph_is_four_by_three() {
        assert_eq!(usual_size(512), (384, 512));
        assert_eq!(usual_size(224), (192, 224));
        assert_eq!(usual_size(32), (32, 32));
    }
}
