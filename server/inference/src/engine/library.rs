//! Finds and loads the shared library of ONNX Runtime.
//!
//! ONNX Runtime allows one environment per process, so the first engine's library and number of
//! threads hold for all later engines of the process.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use densecl_models::Precision;
use ort::environment::{Environment, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::session::Threads;
use super::{EngineError, EngineOptions, Provider, probe};

const LIBRARY: &str = "libonnxruntime.so";

static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// ONNX Runtime cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// None of the usual places has it.
    #[error(
        "ONNX Runtime was not found: tried {tried}; run `make setup`, or name the library with --onnxruntime or DENSECL_ONNXRUNTIME"
    )]
    NotFound {
        /// The places, separated by commas.
        tried: String,
        /// What the last of them said.
        source: ort::LoadDynamicError,
    },
    /// A library that was named, or found, does not load.
    #[error("cannot load ONNX Runtime from {path}; run `make setup` to fetch the right version")]
    Unloadable {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        source: ort::LoadDynamicError,
    },
    /// It loads but does not start.
    #[error("ONNX Runtime does not start")]
    Start(#[source] ort::Error),
}

/// A loaded ONNX Runtime with a device that works.
#[derive(Clone)]
pub(super) struct Runtime {
    environment: Environment,
    provider: Provider,
    precision: Precision,
}

impl Runtime {
    /// One runtime for each device; at least one.
    pub(super) fn start_all(options: &EngineOptions) -> Result<Vec<Self>, EngineError> {
        let environment = environment(options)?;
        let mut failure = None;
        for providers in Provider::candidates(&options.device) {
            let runtimes =
                providers.into_iter().map(|provider| Self::start(&environment, provider, options.precision)).collect();
            match runtimes {
                Ok(runtimes) => return Ok(runtimes),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.expect("there is at least one candidate"))
    }

    fn start(environment: &Environment, provider: Provider, precision: Precision) -> Result<Self, EngineError> {
        let runtime = Self { environment: environment.clone(), provider, precision };
        runtime.probe().map_err(|source| {
            tracing::info!(%provider, error = %source, "device not usable");
            EngineError::Device { device: provider, source }
        })?;
        Ok(runtime)
    }

    /// Runs the smallest model there is.
    fn probe(&self) -> ort::Result<()> {
        let model = probe::model().map_err(ort::Error::wrap)?;
        let mut session = self.session_builder(Threads::All)?.commit_from_memory(&model)?;
        let input = TensorRef::from_array_view(([1, 1, 1, 3], probe::PIXEL))?;
        session.run(ort::inputs![input]).map(|_| ())
    }

    pub(super) fn provider(&self) -> Provider {
        self.provider
    }

    /// What the models compute in.
    pub(super) fn precision(&self) -> Precision {
        self.precision
    }

    /// A builder on this runtime's device.
    pub(super) fn session_builder(&self, threads: Threads) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?
            .with_execution_providers([self.provider.dispatch()])
            .map_err(forget_builder)?
            .with_optimization_level(GraphOptimizationLevel::All)
            .map_err(forget_builder)?
            // Patterns are kept per input shape, and requests bring any number of shapes.
            .with_memory_pattern(false)
            .map_err(forget_builder)?;
        let builder =
            if products_of_bytes_overflow() { builder.with_precise_qmm().map_err(forget_builder)? } else { builder };
        match threads {
            Threads::All => Ok(builder),
            Threads::Own(count) => builder
                .with_independent_thread_pool()
                .map_err(forget_builder)?
                .with_intra_threads(count)
                .map_err(forget_builder)?
                .with_intra_op_spinning(false)
                .map_err(forget_builder),
        }
    }
}

/// Without VNNI, x86 sums products of bytes in 16 bits, which int8 models overflow. ONNX Runtime has
/// kernels that do not, which are three times as slow, and uses them on every CPU if it is told to.
fn products_of_bytes_overflow() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_vnni = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let has_vnni = true;
    !has_vnni
}

fn forget_builder(error: ort::Error<SessionBuilder>) -> ort::Error {
    error.into()
}

fn environment(options: &EngineOptions) -> Result<Environment, LibraryError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*slot {
        return Ok(environment.clone());
    }
    let pool = |builder: ort::environment::EnvironmentBuilder| {
        let threads = GlobalThreadPoolOptions::default()
            .with_intra_threads(options.threads)?
            // Spinning threads would take the cores from decoding and matching.
            .with_spin_control(false)?;
        builder.with_global_thread_pool(threads).with_telemetry(false).build()
    };
    let environment = pool(load(options.library.as_deref())?).map_err(LibraryError::Start)?;
    environment.set_log_level(LogLevel::Warning);
    *slot = Some(environment.clone());
    Ok(environment)
}

/// Loads the library that was named; else the first that exists of the usual places; else
/// whatever the system's loader finds.
fn load(named: Option<&Path>) -> Result<ort::environment::EnvironmentBuilder, LibraryError> {
    let places = places();
    let found = named.map(Path::to_owned).or_else(|| places.iter().find(|place| place.is_file()).cloned());
    if let Some(path) = found {
        return ort::init_from(&path).map_err(|source| LibraryError::Unloadable { path, source });
    }
    ort::init_from(LIBRARY).map_err(|source| {
        let mut tried: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        tried.push(format!("{LIBRARY} on the system's library path"));
        LibraryError::NotFound { tried: tried.join(", "), source }
    })
}

fn places() -> Vec<PathBuf> {
    let named = env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()).map(PathBuf::from);
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(LIBRARY)));
    let fetched = env::current_dir().ok().map(|folder| folder.join(".runtime/onnxruntime").join(LIBRARY));
    [named, beside, fetched].into_iter().flatten().collect()
}

/// The commit that the loaded ONNX Runtime was built from: it names its version to nobody else.
pub fn library_commit() -> &'static str {
    // ORT Build Info: git-branch=HEAD, git-commit-id=6af1a93, build type=Release
    let fields = ort::info().split([',', ' ']);
    fields.into_iter().find_map(|field| field.strip_prefix("git-commit-id=")).unwrap_or("unknown")
}
