//! Probes and metrics, for orchestrators and monitoring: `/livez`, `/readyz`, `/metrics`.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::request::RequestError;
use super::state::{AppState, Phase};
use crate::serving::ServingError;

/// Liveness: answers as long as the process works and needs no restart.
#[utoipa::path(get, path = "/livez", tag = "operations", responses((status = 200, description = "The process works", body = String)))]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Readiness: 503 while the server is loading, warming up or shutting down.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operations",
    responses(
        (status = 200, description = "The server takes requests", body = String),
        (status = 503, description = "The server is loading, or shutting down", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(app): State<AppState>) -> Result<&'static str, RequestError> {
    match app.phase() {
        Phase::Ready => Ok("ok\n"),
        Phase::Loading => Err(ServingError::Loading.into()),
        Phase::Draining => Err(ServingError::Draining.into()),
    }
}

/// Metrics in the format of Prometheus and `OpenMetrics`.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operations",
    responses((status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"))
)]
pub(super) async fn get_metrics(State(app): State<AppState>) -> Result<Response, RequestError> {
    let text = app.metrics().text().map_err(RequestError::internal)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
