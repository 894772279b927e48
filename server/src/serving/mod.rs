//! The use cases: features of images, and correspondences between images, within the server's bounds.
//!
//! A request makes a [`FeatureExtraction`] from its [`Service`], its [`WorkContext`] and what it selected ([`Selection`]);
//! that admits it ([`admission`]), finds or computes features ([`features`]) and matches them ([`correspondence`]).
//! Decoding, matching and encoding run on the [`CpuPool`], never on the threads that serve connections.
//!
//! Not here: HTTP, parameters, formats of replies. Invariants: nothing of axum or hyper; memory is reserved before it is
//! allocated; nothing waits to be admitted.

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
