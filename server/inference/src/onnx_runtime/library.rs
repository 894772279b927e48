//! Loads ONNX Runtime and opens its devices.
//!
//! ONNX Runtime allows one environment per process, so the first engine's library and number of
//! threads hold for all later engines of the process.

use std::sync::{Mutex, PoisonError};

use densecl_models::{Precision, onnx_runtime_library};
use ort::environment::{Environment, EnvironmentBuilder, GlobalThreadPoolOptions};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;

use super::{EngineOptions, OnnxRuntimeError, probe};
use crate::backend::Provider;

static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// The threads that runs of a session use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// Those of the pool that all such sessions share.
    All,
    /// This many of its own, the calling one included.
    Own(usize),
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
    pub(super) fn start_all(options: &EngineOptions) -> Result<Vec<Self>, OnnxRuntimeError> {
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

    fn start(environment: &Environment, provider: Provider, precision: Precision) -> Result<Self, OnnxRuntimeError> {
        let runtime = Self { environment: environment.clone(), provider, precision };
        runtime.probe().map_err(|source| {
            tracing::info!(%provider, error = %source, "device not usable");
            OnnxRuntimeError::Device { device: provider, source }
        })?;
        Ok(runtime)
    }

    /// Runs the smallest possible model.
    fn probe(&self) -> ort::Result<()> {
        let model = probe::model().map_err(ort::Error::wrap)?;
        let mut session = self.session_builder(Threads::All)?.commit_from_memory(&model)?;
        let input = TensorRef::from_array_view(([1, 1, 1, 3], probe::PIXEL))?;
        session.run(ort::inputs![input]).map(|_| ())
    }

    pub(super) fn provider(&self) -> Provider {
        self.provider
    }

    /// The number format that models compute in.
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

/// True if sums of products of bytes overflow on this CPU: without VNNI, x86 adds them in 16 bits, which int8 models
/// exceed. ONNX Runtime has kernels that do not overflow; they take three times as long, and are used on request.
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

fn environment(options: &EngineOptions) -> Result<Environment, OnnxRuntimeError> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*slot {
        return Ok(environment.clone());
    }
    let pool = |builder: EnvironmentBuilder| {
        let threads = GlobalThreadPoolOptions::default()
            .with_intra_threads(options.threads)?
            // Spinning threads would take the cores from decoding and matching.
            .with_spin_control(false)?;
        builder.with_global_thread_pool(threads).with_telemetry(false).build()
    };
    let environment = pool(onnx_runtime_library::load(options.library.as_deref(), |path| ort::init_from(path))?)
        .map_err(OnnxRuntimeError::Start)?;
    environment.set_log_level(LogLevel::Warning);
    *slot = Some(environment.clone());
    Ok(environment)
}

/// The commit that the loaded ONNX Runtime was built from. Its API does not tell the version.
pub fn library_commit() -> &'static str {
    // ORT Build Info: git-branch=HEAD, git-commit-id=6af1a93, build type=Release
    let fields = ort::info().split([',', ' ']);
    fields.into_iter().find_map(|field| field.strip_prefix("git-commit-id=")).unwrap_or("unknown")
}
