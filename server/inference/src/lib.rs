//! Runs models with ONNX Runtime.
//!
//! [`registry`] knows which models are served and replaces them while requests go on. [`batch`] is the bounded queue that
//! forms batches. [`engine`] owns the sessions of ONNX Runtime. [`metrics`] is what the queue and the runs count.
//!
//! Not here: pictures, HTTP, caching. Invariants: this is the only crate of the server that depends on `ort` (held by
//! `tests/architecture.rs`); `registry → batch → engine`, and no module uses one to its left.

pub mod batch;
pub mod engine;
pub mod metrics;
pub mod registry;
