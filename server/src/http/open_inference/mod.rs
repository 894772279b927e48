//! The Open Inference Protocol (`KServe` v2), with Triton's extensions for binary tensors and for model
//! repositories: what `tritonclient` speaks.
//!
//! `request` turns a body into a typed request and is a plain function of bytes; `reply` is the way
//! back. Outputs are what the model computes, un-normalised.

mod errors;
mod infer;
mod inflate;
mod metadata;
mod pixels;
mod reply;
mod repository;
mod request;
mod schema;
mod wanted;

use axum::middleware;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::errors::name_errors;
pub use self::request::{Images, InferenceRequest, MalformedInference, RequestedOutput, TensorForm, parse};
use super::guard::administration::require_administrator;
use super::state::AppState;

/// Where models are run.
pub(super) fn inference() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(infer::post_infer)).routes(routes!(infer::post_infer_version))
}

/// Whether the server is ready.
pub(super) fn health() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metadata::get_live)).routes(routes!(metadata::get_ready))
}

/// What there is, and whether it is ready.
pub(super) fn descriptions() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(metadata::get_server))
        .routes(routes!(metadata::get_model))
        .routes(routes!(metadata::get_model_version))
        .routes(routes!(metadata::get_model_ready))
        .routes(routes!(metadata::get_model_version_ready))
}

/// What changes the models, for administrators alone.
pub(super) fn administration() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(repository::post_index))
        .routes(routes!(repository::post_load))
        .routes(routes!(repository::post_unload))
        .route_layer(middleware::from_fn(require_administrator))
}
