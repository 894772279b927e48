//! Shared parts of the end-to-end tests.

pub mod pictures;
pub mod server;

use std::path::{Path, PathBuf};

use densecl_inference::onnx_runtime::{Device, EngineOptions, OnnxRuntimeBackend, Precision};

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Path of ONNX Runtime's shared library: `DENSECL_ONNXRUNTIME`, or the file that `make setup` fetched.
///
/// # Panics
/// If it is in neither place.
pub fn onnxruntime() -> PathBuf {
    let path = std::env::var_os("DENSECL_ONNXRUNTIME")
        .map_or_else(|| root().join(".runtime/onnxruntime/libonnxruntime.so"), PathBuf::from);
    assert!(path.is_file(), "ONNX Runtime is not at {}; `make setup` fetches it", path.display());
    path
}

/// An engine on `device` with one thread.
///
/// # Panics
/// If ONNX Runtime cannot be loaded.
pub fn engine(device: Device) -> OnnxRuntimeBackend {
    let options = EngineOptions {
        library: Some(onnxruntime()),
        device,
        threads: 1,
        engines: None,
        precision: Precision::Float32,
    };
    OnnxRuntimeBackend::start(&options).expect("ONNX Runtime starts")
}
