//! Serves dense features and point correspondences from ONNX models over HTTP.
//!
//! [`http`] reads a request and writes its reply; [`serving`] does the work, with the models of `densecl_inference` and the
//! images, features and matching of `densecl_vision`; [`cache`] keeps features. [`app`] puts these together.
//!
//! `http → serving → cache`, and no module uses one to its left.

pub mod api_keys;
pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod http;
pub mod metrics;
pub mod rate;
mod rate_limits;
pub mod serving;
pub mod spans;
