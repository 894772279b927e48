//! The document at `/openapi.json`, and Swagger UI at `/docs`, which shows it.
//!
//! All addresses are relative, so that the pages work behind a proxy that puts a prefix before their paths.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use utoipa_swagger_ui::{SwaggerFile, serve};

use super::examples;
use super::ordered_json::OrderedJson;
use crate::http::request::RequestError;
use crate::http::state::AppState;

/// Swagger UI needs inline styles, and shows pictures of replies by `blob:` URLs; scripts come from this server alone.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'";

/// Starts Swagger UI with our settings.
const INITIALIZER: &str = include_str!("swagger-initializer.js");

pub(in crate::http) fn router(document: OrderedJson) -> Router<AppState> {
    let document = Arc::new(document);
    let page = async || swagger_file("");
    let file = async |path: Result<Path<String>, PathRejection>| {
        let Path(path) = path.map_err(|_| RequestError::NoSuchPath)?;
        swagger_file(&path)
    };
    let pages = Router::new()
        .route(
            "/openapi.json",
            get(move |State(app): State<AppState>| async move { openapi_document(&app, &document) }),
        )
        .route("/docs", get(async || (StatusCode::SEE_OTHER, [(header::LOCATION, "docs/")])))
        .route("/docs/", get(page))
        .route("/docs/{*rest}", get(file));
    pages.layer(middleware::map_response(async |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        // The pages change with the server's version.
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        response
    }))
}

/// The document, with examples for a model that is served, unless models are named only to clients with a key.
fn openapi_document(app: &AppState, document: &OrderedJson) -> Json<OrderedJson> {
    let mut document = document.clone();
    if app.api_keys().is_none()
        && let Ok(registry) = app.service().registry()
    {
        examples::add_for_models(&mut document, &registry);
    }
    Json(document)
}

/// A file of Swagger UI; that of the empty path is its page.
fn swagger_file(path: &str) -> Result<Response, RequestError> {
    if path == "swagger-initializer.js" {
        return Ok(([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], INITIALIZER).into_response());
    }
    let found = serve(path, Arc::default()).map_err(|error| RequestError::internal(anyhow::anyhow!("{error}")))?;
    let SwaggerFile { bytes, content_type, gzpipped, .. } = found.ok_or(RequestError::NoSuchPath)?;
    let mut response = ([(header::CONTENT_TYPE, content_type)], Body::from(bytes.into_owned())).into_response();
    if gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
