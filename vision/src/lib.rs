//! Pictures and feature maps, as plain synchronous code.
//!
//! [`image`] decodes, resizes and encodes pictures. [`features`] holds feature maps `[C, h, w]`, their coordinates,
//! sampling, principal components and the bytes of tensors. [`matching`] finds corresponding points of two feature maps,
//! verifies them by a geometric model and draws them.
//!
//! Not here: running a model, HTTP, files other than pictures and tensors. Invariants: no tokio, axum, ONNX Runtime or
//! libtorch (held by the crate's dependencies, `tests/architecture.rs`); no function keeps state between calls; parallel
//! work runs on rayon and does not depend on the number of threads.

pub mod features;
pub mod homography;
pub mod image;
pub mod matching;
mod product;
