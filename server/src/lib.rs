//! Serves dense features and point correspondences from ONNX models over HTTP.
//!
//! The way of a request: [`http`] reads it, [`image`] decodes it, [`registry`] finds the model,
//! [`batch`] collects what can run together, [`engine`] runs it, [`cache`] keeps what came of it, and [`features`] or [`matching`]
//! make the answer. [`app`] puts these together; [`error`] is the only place where a failure
//! becomes a status.
//!
//! `http → registry → batch → engine → models`, and `http → image, features, matching`: no module
//! uses one to its left.

pub mod api_keys;
pub mod app;
pub mod cache;
pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod metrics;
pub mod rate;
pub mod spans;
