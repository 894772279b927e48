//! Runs models: the only module that knows ONNX Runtime.
//!
//! An [`Engine`] is a plain synchronous object that one thread owns. It keeps a bounded number of
//! sessions, each built from the part of a graph that computes just the layers asked for: ONNX
//! Runtime runs the whole graph whichever outputs are fetched, so an early layer of an uncut
//! graph would cost as much as the last one. [`Engine::start_all`] starts as many engines as the
//! machine is worth ([`crew`]), one for each thread that is to run models.
//!
//! It does not queue, batch or wait; that is `batch`. It knows nothing of HTTP or of images:
//! pixels come in as bytes, layers go out as floats.

mod cache;
pub mod crew;
mod device;
mod heap;
mod library;
mod model_file;
mod probe;
mod session;
mod whole;
mod workshop;

use std::path::PathBuf;
use std::sync::Arc;

use densecl_models::ModelError;
pub use densecl_models::Precision;

use self::cache::SessionCache;
use self::crew::Post;
pub use self::device::{Device, DeviceParseError, Provider};
use self::library::Runtime;
pub use self::library::{LibraryError, library_commit};
#[cfg(test)]
pub(crate) use self::model_file::tests::smallest;
pub use self::model_file::{ModelFile, ModelId};
use self::session::{CutSession, Threads};
use self::whole::WholeMachine;
pub use self::workshop::{Prepared, SharedSessions, Workshop};

/// Sessions of a model kept per engine. One is a cut; all the layers and a few hypercolumns fit.
const MAX_SESSIONS: usize = 8;

/// How engines are set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The shared library of ONNX Runtime; looked for in the usual places if `None`.
    pub library: Option<PathBuf>,
    /// Where models run.
    pub device: Device,
    /// Threads that inference may use on a CPU, all engines together.
    pub threads: usize,
    /// Engines on a CPU, or on each GPU; see [`crew`] for how many there are if `None`.
    pub engines: Option<usize>,
    /// What the models compute in.
    pub precision: Precision,
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
    /// Height of each, in pixels.
    pub height: usize,
    /// Width of each, in pixels.
    pub width: usize,
    /// RGB bytes of each, `[height, width, 3]`; at least one image.
    pub images: &'a [&'a [u8]],
}

/// What one layer says of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutput {
    /// Length of a descriptor.
    pub channels: usize,
    /// Cells along y.
    pub height: usize,
    /// Cells along x.
    pub width: usize,
    /// Un-normalised, `[channels, height, width]`.
    pub data: Vec<f32>,
}

/// What else the machine does while a batch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Nothing: the run may use all threads.
    Idle,
    /// Other engines run too, or are about to.
    Busy,
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
    /// Somebody wrote over the model's file after it was loaded.
    #[error("the file of model `{name}`, version {version}, was overwritten after it was loaded")]
    FileChanged {
        /// The model.
        name: String,
        /// Its version.
        version: u32,
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

/// Sessions by what they compute.
type Sessions = SessionCache<ModelId, LayerSet, CutSession>;

impl Sessions {
    fn adopt(&mut self, prepared: Prepared) {
        let Prepared { model, layers, session } = prepared;
        self.insert((model, layers), session);
    }

    /// Drops the sessions of a model that is not served any more; their memory goes back.
    fn release(&mut self, model: ModelId) {
        if self.forget(&model) {
            heap::return_freed();
        }
    }
}

/// Runs models on one device.
pub struct Engine {
    runtime: Runtime,
    threads: Threads,
    sessions: Sessions,
    /// The sessions with all threads, which the engines lend each other.
    whole: Option<WholeMachine>,
}

impl Engine {
    /// Loads ONNX Runtime, settles on a device, and starts one engine that has all threads to
    /// itself.
    ///
    /// # Errors
    /// If the library cannot be found or loaded, or CUDA was asked for and cannot be used.
    pub fn start(options: &EngineOptions) -> Result<Self, EngineError> {
        let options = EngineOptions { engines: Some(1), ..options.clone() };
        let mut engines = Self::start_all(&options)?;
        Ok(engines.swap_remove(0))
    }

    /// Loads ONNX Runtime, settles on the devices, and starts as many engines as [`crew`] says;
    /// at least one.
    ///
    /// # Errors
    /// As for [`Engine::start`].
    pub fn start_all(options: &EngineOptions) -> Result<Vec<Self>, EngineError> {
        let runtimes = Runtime::start_all(options)?;
        let providers: Vec<Provider> = runtimes.iter().map(Runtime::provider).collect();
        let posts = crew::posts(&providers, options);
        let shares_cpu = posts.len() > 1 && providers == [Provider::Cpu];
        let whole = shares_cpu.then(|| WholeMachine::new(MAX_SESSIONS));
        let engine = |Post { device, threads }: Post| Self {
            runtime: runtimes[device].clone(),
            threads: if threads == options.threads { Threads::All } else { Threads::Own(threads) },
            sessions: SessionCache::new(MAX_SESSIONS),
            whole: whole.clone(),
        };
        Ok(posts.into_iter().map(engine).collect())
    }

    /// What models really run on.
    pub fn provider(&self) -> Provider {
        self.runtime.provider()
    }

    /// Computes `layers` of all images of a batch: a list per image, each in the order of
    /// [`LayerSet::names`].
    ///
    /// # Errors
    /// If a session cannot be built or the run fails.
    pub fn run(
        &mut self,
        model: &ModelFile,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        load: Load,
    ) -> Result<Vec<Vec<LayerOutput>>, EngineError> {
        let Self { runtime, threads, sessions, whole } = self;
        let key = (model.id(), layers.clone());
        if load == Load::Idle
            && let Some(mut lent) = whole.as_ref().and_then(WholeMachine::take)
        {
            let build = || CutSession::build(runtime, model, layers, Threads::All);
            return lent.sessions().get_or_insert_with(key, build)?.run(layers, batch);
        }
        let build = || CutSession::build(runtime, model, layers, *threads);
        sessions.get_or_insert_with(key, build)?.run(layers, batch)
    }

    /// Makes sessions for this engine, from any thread.
    pub fn workshop(&self) -> Workshop {
        Workshop { runtime: self.runtime.clone(), threads: self.threads }
    }

    /// The sessions that this engine and others lend each other, if they do.
    pub fn shared(&self) -> Option<SharedSessions> {
        let workshop = Workshop { runtime: self.runtime.clone(), threads: Threads::All };
        self.whole.clone().map(|whole| SharedSessions { whole, workshop })
    }

    /// Takes over a session from its own workshop.
    pub fn adopt(&mut self, prepared: Prepared) {
        self.sessions.adopt(prepared);
    }

    /// Drops its own sessions of a model that is not served any more; their memory goes back.
    pub fn forget(&mut self, model: ModelId) {
        self.sessions.release(model);
    }

    /// Forgets every session of its own; the next run builds them again.
    pub fn reset(&mut self) {
        self.sessions.clear();
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
