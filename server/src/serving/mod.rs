//! The use cases: features of images, and correspondences between images, within the server's bounds.
//!
//! A request creates a `FeatureExtraction` from the `Service`, its `WorkContext` and its `Selection`. It is
//! admitted (`admission`), features are found or computed (`features`) and matched (`correspondence`). Decoding,
//! matching and encoding run on the `CpuPool`, never on the threads that serve connections.
//!
//! HTTP, parameters and formats of replies are not here. Invariants: no axum, no hyper; memory is reserved before it is
//! allocated; no request waits for admission.

pub(crate) mod admission;
pub(crate) mod correspondence;
mod cpu_pool;
mod error;
mod extraction;
mod extractor;
pub(crate) mod features;
pub(crate) mod known_features;
mod selection;
mod service;
mod timings;

pub(crate) use self::cpu_pool::{CpuPool, JobError};
pub use self::error::ServingError;
pub(crate) use self::extraction::FeatureExtraction;
pub use self::extractor::{ExtractorError, FeatureExtractor};
pub(crate) use self::selection::{Selection, SelectionChoice};
pub(crate) use self::service::Service;
pub(crate) use self::timings::{Stage, Timings, WorkContext};
