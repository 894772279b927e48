//! Runs models: the only module that knows ONNX Runtime.
//!
//! An [`Engine`] is a plain synchronous object that one thread owns. It keeps a bounded number of
//! sessions, each built from the part of a graph that computes just the layers asked for: ONNX
//! Runtime runs the whole graph whichever outputs are fetched, so an early layer of an uncut
//! graph would cost as much as the last one.
//!
//! It does not queue, batch or wait; that is `batch`. It knows nothing of HTTP or of images:
//! pixels come in as `[N, H, W, 3]` bytes, layers go out as `[N, C, h, w]` floats.

mod cache;
mod device;
mod library;
mod probe;
mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use densecl_models::ModelError;

use self::cache::SessionCache;
pub use self::device::{Device, DeviceParseError, Provider};
pub use self::library::LibraryError;
use self::library::Runtime;
use self::session::CutSession;

/// Sessions kept per engine. One is a cut of one model; all the layers of one model and a few
/// hypercolumns fit.
const MAX_SESSIONS: usize = 8;

/// How an [`Engine`] is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The shared library of ONNX Runtime; looked for in the usual places if `None`.
    pub library: Option<PathBuf>,
    /// Where models run.
    pub device: Device,
    /// Threads that one inference may use.
    pub threads: usize,
}

/// The file of one version of a model. Its bytes are read again for each new cut, so that no
/// parsed copy of the weights stays in memory beside the sessions' own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelFile {
    /// The model's name in the repository.
    pub name: Arc<str>,
    /// Its version.
    pub version: u32,
    /// The ONNX file.
    pub path: Arc<Path>,
}

/// The layers that one run computes, in this order, each of them once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerSet(Arc<[String]>);

impl LayerSet {
    /// Takes the names of one or more layers; `None` if there is none, or one comes twice.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Option<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let repeated = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
        (!names.is_empty() && !repeated).then(|| Self(names.into()))
    }

    /// The names, at least one.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

/// Images of one size as a model takes them.
#[derive(Clone, Copy, Debug)]
pub struct ImageBatch<'a> {
    /// How many there are.
    pub count: usize,
    /// Height of each, in pixels.
    pub height: usize,
    /// Width of each, in pixels.
    pub width: usize,
    /// RGB bytes, `[count, height, width, 3]`.
    pub pixels: &'a [u8],
}

/// What one layer says of a batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerBatch {
    /// `[N, C, h, w]`.
    pub shape: [usize; 4],
    /// Un-normalised descriptors in that order.
    pub data: Vec<f32>,
}

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// ONNX Runtime itself is missing or unusable.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The device that was asked for cannot be used.
    #[error("{device} was asked for but cannot be used")]
    Device {
        /// The device.
        device: Provider,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// The model file cannot be read or cut.
    #[error("cannot load the model {path}")]
    Model {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ModelError,
    },
    /// ONNX Runtime refuses the model.
    #[error("ONNX Runtime cannot load the model {path}")]
    Session {
        /// The file.
        path: PathBuf,
        /// What ONNX Runtime said.
        source: ort::Error,
    },
    /// A run failed.
    #[error("inference failed")]
    Run(#[source] ort::Error),
    /// The model answered with something other than its manifest promises.
    #[error("layer `{layer}` came out wrong: {reason}")]
    Output {
        /// The layer.
        layer: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Runs models on one device.
pub struct Engine {
    runtime: Runtime,
    sessions: SessionCache<(ModelFile, LayerSet), CutSession>,
}

impl Engine {
    /// Loads ONNX Runtime and settles on a device.
    ///
    /// # Errors
    /// If the library cannot be found or loaded, or CUDA was asked for and cannot be used.
    pub fn start(options: &EngineOptions) -> Result<Self, EngineError> {
        let runtime = Runtime::start(options)?;
        Ok(Self { runtime, sessions: SessionCache::new(MAX_SESSIONS) })
    }

    /// What models really run on.
    pub fn provider(&self) -> Provider {
        self.runtime.provider()
    }

    /// Builds the session for these layers, so that the first request need not wait for it.
    ///
    /// # Errors
    /// If the file cannot be read or ONNX Runtime refuses it.
    pub fn prepare(&mut self, model: &ModelFile, layers: &LayerSet) -> Result<(), EngineError> {
        self.session(model, layers).map(|_| ())
    }

    /// Computes `layers` of all `images`, in the order of [`LayerSet::names`].
    ///
    /// # Errors
    /// If the session cannot be built or the run fails.
    pub fn run(
        &mut self,
        model: &ModelFile,
        layers: &LayerSet,
        images: ImageBatch<'_>,
    ) -> Result<Vec<LayerBatch>, EngineError> {
        self.session(model, layers)?.run(layers, images)
    }

    /// Forgets every session; the next run builds its own again.
    pub fn reset(&mut self) {
        self.sessions.clear();
    }

    fn session(&mut self, model: &ModelFile, layers: &LayerSet) -> Result<&mut CutSession, EngineError> {
        let Self { runtime, sessions } = self;
        sessions.get_or_insert_with((model.clone(), layers.clone()), || CutSession::build(runtime, model, layers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_set_has_each_layer_once() {
        assert_eq!(LayerSet::new(["res3", "res4"]).expect("two layers").names(), ["res3", "res4"]);
        assert_eq!(LayerSet::new(["res3", "res3"]), None);
        assert_eq!(LayerSet::new(Vec::<String>::new()), None);
    }
}
