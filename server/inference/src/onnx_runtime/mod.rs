//! Runs models with ONNX Runtime: the only module that imports `ort`.
//!
//! An [`OnnxRuntimeBackend`] is a plain synchronous object that one thread owns. It keeps a bounded number of sessions,
//! each built from the part of a graph that computes just the layers asked for: ONNX Runtime runs the whole graph
//! whichever outputs are fetched, so an early layer of an uncut graph would cost as much as the last one.
//! [`OnnxRuntimeBackend::start_all`] makes as many as suit the machine ([`placement`]), one for each thread that is to run
//! models.
//!
//! It does not queue, batch or wait; that is `batch`. It knows neither HTTP nor image files: pixels come in as bytes,
//! layers go out as floats.

mod device;
mod heap;
mod library;
pub mod placement;
pub(crate) mod probe;
mod session;
mod session_builder;
mod session_cache;
mod session_pool;

use std::path::PathBuf;

pub use densecl_models::Precision;
pub use densecl_models::onnx_runtime_library::LoadError;

pub use self::device::{Device, DeviceParseError};
use self::library::Runtime;
use self::library::Threads;
pub use self::library::library_commit;
use self::placement::EnginePlacement;
use self::session::CutSession;
pub use self::session_builder::{OnnxSessionBuilder, WarmSession};
use self::session_cache::SessionCache;
use self::session_pool::SharedSessionPool;
use crate::backend::{Backend, BackendError, ImageBatch, LayerOutput, LayerSet, Load, ModelId, Provider};
use crate::model_file::ModelFile;

/// Sessions of a model kept per engine. One is a cut; all the layers and a few hypercolumns fit.
const MAX_SESSIONS: usize = 8;

/// Settings of the engines.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The shared library of ONNX Runtime; looked for in the usual places if `None`.
    pub library: Option<PathBuf>,
    /// Where models run.
    pub device: Device,
    /// Threads that inference may use on a CPU, all engines together.
    pub threads: usize,
    /// Engines on a CPU, or on each GPU; see [`placement`] for how many there are if `None`.
    pub engines: Option<usize>,
    /// The number format that models compute in.
    pub precision: Precision,
}

/// Why ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OnnxRuntimeError {
    /// Its shared library cannot be found or loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It loads but does not start.
    #[error("ONNX Runtime does not start")]
    Start(#[source] ort::Error),
    /// The device that was asked for cannot be used.
    #[error("{device} was asked for but cannot be used")]
    Device {
        /// The device.
        device: Provider,
        /// The error of ONNX Runtime.
        source: ort::Error,
    },
}

/// Sessions by what they compute.
type Sessions = SessionCache<ModelId, LayerSet, CutSession>;

impl Sessions {
    fn adopt(&mut self, session: WarmSession) {
        let WarmSession { model, layers, session } = session;
        self.insert((model, layers), session);
    }

    /// Drops the sessions of a model that is not served any more; their memory goes back.
    fn release(&mut self, model: ModelId) {
        if self.forget(&model) {
            heap::return_freed();
        }
    }
}

/// Runs models on one device, with sessions of its own and, on a CPU, sessions that it shares with other engines.
pub struct OnnxRuntimeBackend {
    runtime: Runtime,
    threads: Threads,
    sessions: Sessions,
    /// Sessions that use all threads, for runs that have the machine to themselves.
    shared: Option<SharedSessionPool>,
}

impl OnnxRuntimeBackend {
    /// Loads ONNX Runtime, settles on a device, and starts one engine that has all threads to
    /// itself.
    ///
    /// # Errors
    /// If the library cannot be found or loaded, or CUDA was asked for and cannot be used.
    pub fn start(options: &EngineOptions) -> Result<Self, OnnxRuntimeError> {
        let options = EngineOptions { engines: Some(1), ..options.clone() };
        let mut engines = Self::start_all(&options)?;
        Ok(engines.swap_remove(0))
    }

    /// Loads ONNX Runtime, settles on the devices, and starts as many engines as [`placement`] says;
    /// at least one.
    ///
    /// # Errors
    /// If the library cannot be found or loaded, or CUDA was asked for and cannot be used.
    pub fn start_all(options: &EngineOptions) -> Result<Vec<Self>, OnnxRuntimeError> {
        let runtimes = Runtime::start_all(options)?;
        let providers: Vec<Provider> = runtimes.iter().map(Runtime::provider).collect();
        let placements = placement::placements(&providers, options);
        let shares_cpu = placements.len() > 1 && providers == [Provider::Cpu];
        let shared = shares_cpu.then(|| SharedSessionPool::new(MAX_SESSIONS));
        let engine = |EnginePlacement { device, threads }: EnginePlacement| Self {
            runtime: runtimes[device].clone(),
            threads: if threads == options.threads { Threads::All } else { Threads::Own(threads) },
            sessions: SessionCache::new(MAX_SESSIONS),
            shared: shared.clone(),
        };
        Ok(placements.into_iter().map(engine).collect())
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
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        let Self { runtime, threads, sessions, shared } = self;
        let key = (model.id(), layers.clone());
        if load == Load::Idle
            && let Some(mut lease) = shared.as_ref().and_then(SharedSessionPool::lease)
        {
            let build = || CutSession::build(runtime, model, layers, Threads::All);
            return lease.sessions().get_or_insert_with(key, build)?.run(layers, batch);
        }
        let build = || CutSession::build(runtime, model, layers, *threads);
        sessions.get_or_insert_with(key, build)?.run(layers, batch)
    }
}

impl Backend for OnnxRuntimeBackend {
    type Model = ModelFile;
    type Session = WarmSession;
    type SessionBuilder = OnnxSessionBuilder;

    fn provider(&self) -> Provider {
        self.runtime.provider()
    }

    fn session_builder(&self) -> OnnxSessionBuilder {
        OnnxSessionBuilder { runtime: self.runtime.clone(), threads: self.threads, shared: self.shared.clone() }
    }

    async fn run(
        &mut self,
        model: &ModelFile,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        load: Load,
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        Self::run(self, model, layers, batch, load)
    }

    fn adopt(&mut self, session: WarmSession) {
        self.sessions.adopt(session);
    }

    fn forget(&mut self, model: ModelId) {
        self.sessions.release(model);
        if let Some(pool) = &self.shared {
            pool.change(move |sessions| sessions.release(model));
        }
    }

    fn reset(&mut self) {
        self.sessions.clear();
    }
}
