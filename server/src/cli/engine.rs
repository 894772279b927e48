//! Flags of the engines.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;

use clap::{Args, ValueEnum};

use densecl_inference::onnx_runtime::{Device, EngineOptions, Precision};

/// Flags of the engines.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Where models run: auto, cpu, cuda, or cuda:N,M for several GPUs; CUDA that cannot start is an error
    #[arg(long, env = "DENSECL_DEVICE", default_value = "auto")]
    device: Device,
    /// Threads for inference, and for decoding and matching; all cores by default
    #[arg(long, env = "DENSECL_THREADS", value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,
    /// Engines on the CPU, or on each GPU; by default one per thread (up to 8), or 2 per GPU
    #[arg(long, env = "DENSECL_ENGINES", value_name = "N")]
    engines: Option<NonZeroUsize>,
    /// Number type that models compute in; float16 is faster on a GPU
    #[arg(long, env = "DENSECL_PRECISION", value_enum, default_value_t)]
    precision: ComputePrecision,
    /// Shared library of ONNX Runtime; searched in the usual places by default
    #[arg(long, env = "DENSECL_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

impl EngineArgs {
    pub(super) fn options(&self) -> EngineOptions {
        let cores = || available_parallelism().map_or(1, NonZeroUsize::get);
        EngineOptions {
            library: self.onnxruntime.clone(),
            device: self.device.clone(),
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            engines: self.engines.map(NonZeroUsize::get),
            precision: match self.precision {
                ComputePrecision::Float32 => Precision::Float32,
                ComputePrecision::Float16 => Precision::Float16,
            },
        }
    }
}

/// The floating-point type of a model's arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ComputePrecision {
    /// 24 significant bits
    #[default]
    Float32,
    /// 11 significant bits
    Float16,
}
