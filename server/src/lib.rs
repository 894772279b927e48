//! Serves dense features and point correspondences from ONNX models over HTTP.
//!
//! [`http`] reads requests and writes replies; [`serving`] contains the use cases, which run models by `densecl_inference`
//! and process images by `densecl_vision`; [`cache`] stores features. [`app`] assembles them.
//!
//! Dependencies: `http → serving → cache`; no module uses one to its left.

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
