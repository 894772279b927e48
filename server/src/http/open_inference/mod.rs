//! The Open Inference Protocol (`KServe` v2), with Triton's extensions for binary tensors and model repositories, for
//! clients such as `tritonclient`.
//!
//! `request` parses a body, `resolved_outputs` checks it against the model and the limits, `reply` writes the outputs,
//! which are the model's and not normalised unless the request asks for vectors of length 1.

mod errors;
mod infer;
mod inflate;
mod metadata;
mod pixels;
mod reply;
mod repository;
mod request;
mod resolved_outputs;
mod schema;

use axum::middleware;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(super) use self::errors::add_error_member;
pub(super) use self::reply::HEADER_LENGTH;
pub use self::request::{Images, InferenceRequest, MalformedInference, RequestedOutput, TensorForm, parse};
use super::guard::administration::require_administrator;
use super::state::AppState;

/// Routes that run models.
pub(super) fn inference() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(infer::post_infer)).routes(routes!(infer::post_infer_version))
}

/// Routes of liveness and readiness.
pub(super) fn health() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metadata::get_live)).routes(routes!(metadata::get_ready))
}

/// Routes that describe the server and its models.
pub(super) fn descriptions() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(metadata::get_server))
        .routes(routes!(metadata::get_model))
        .routes(routes!(metadata::get_model_version))
        .routes(routes!(metadata::get_model_ready))
        .routes(routes!(metadata::get_model_version_ready))
        .routes(routes!(repository::post_index))
}

/// Routes that load and unload models, for administrators only.
pub(super) fn administration() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(repository::post_load))
        .routes(routes!(repository::post_unload))
        .route_layer(middleware::from_fn(require_administrator))
}
