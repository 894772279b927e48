//! Runs models with ONNX Runtime.
//!
//! [`registry`] knows which models are served and replaces them while requests go on. [`batch`] is the bounded queue that
//! forms batches. [`backend`] is the interface to what runs them, and [`onnx_runtime`] implements it. [`metrics`] counts
//! what the queue and the engines do.
//!
//! No image files, HTTP or caching here. Invariants: this is the only crate of the server that depends on `ort` (held by
//! `tests/architecture.rs`); `registry → batch → backend ← onnx_runtime`.

pub mod backend;
pub mod batch;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod metrics;
pub mod model_file;
pub mod onnx_runtime;
pub mod registry;
