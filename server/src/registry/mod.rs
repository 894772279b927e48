//! The models that are served, by name and version.
//!
//! A [`Registry`] is opened once from a repository on disk: every file in it must be a model, and
//! the default layer of every model's newest version is run once before the server is ready, so
//! that a broken file is found at start and not by the first user.
//!
//! It holds manifests and paths, never weights; those are the engine's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use densecl_models::repository::{self, ModelVersion, RepositoryError};
use densecl_models::{Layer, Manifest, ModelError, OnnxModel};

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
    /// A model does not run.
    #[error("the model {path} does not run")]
    WarmUp {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: BatchError,
    },
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
    /// Reads every manifest below `root` and runs the newest version of each model once.
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: &Path, batcher: Batcher) -> Result<Self, OpenError> {
        let mut models: BTreeMap<String, BTreeMap<u32, ServedModel>> = BTreeMap::new();
        for found in repository::scan(root)? {
            let version = found.version;
            let name = found.name.clone();
            models.entry(name).or_default().insert(version, ServedModel::open(found, &batcher)?);
        }
        let registry = Self { models, batcher };
        for newest in registry.newest() {
            newest.warm_up()?;
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
        let manifest = match OnnxModel::open(&path) {
            Ok(model) => Arc::new(model.manifest().clone()),
            Err(source) => return Err(OpenError::Model { path, source }),
        };
        let file = ModelFile { name: name.into(), version, path: path.into() };
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

    /// Runs the default layer at the default side on every engine: it builds the sessions and
    /// touches every kernel and all the memory that usual requests need.
    fn warm_up(&self) -> Result<(), OpenError> {
        let failed = |source| OpenError::WarmUp { path: self.file.path.to_path_buf(), source };
        let layers = LayerSet::new(self.manifest.default_layer.split('+'))
            .expect("a manifest that was checked names no layer twice");
        self.batcher.warm_up(&self.file, &layers, usual_size(self.manifest.default_side)).map_err(failed)
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
