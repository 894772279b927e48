//! The wire: routes, bodies, parameters, replies.
//!
//! This is the only module that knows axum. A handler reads its request into values that are
//! already valid, lets `extraction` find or make the feature maps, and writes the reply in the format that
//! was asked for. Decoding, matching and encoding run on `cpu_pool`, never on the threads that
//! serve connections.

mod access_log;
mod administration;
mod admission;
mod authenticate;
mod client_address;
mod connections;
mod correspondence;
mod correspondence_document;
mod correspondence_job;
mod correspondence_parameters;
mod correspondence_reply;
mod correspondence_tensors;
mod counted_body;
mod cpu_pool;
mod docs;
mod extraction;
mod feature_ids;
mod features;
mod features_document;
mod features_parameters;
mod features_reply;
#[doc(hidden)]
pub mod fuzzing;
mod models;
mod negotiation;
mod observe;
mod open_inference;
mod page;
mod parameters;
mod pipeline;
mod probes;
mod problem;
mod problem_responses;
mod rate_limit;
mod reply_body;
mod reply_headers;
mod state;
mod timings;
mod upload;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::middleware;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub(crate) use self::connections::{Entrance, Unfinished, serve};
pub use self::docs::document;
pub use self::pipeline::{FeatureExtractor, PipelineError};
pub use self::state::{AppState, Phase, StateError};
use crate::config::CorsOrigin;
use crate::error::ApiError;

/// The whole server, without a listener.
pub fn router(state: AppState) -> Router {
    let work = work().route_layer(middleware::from_fn_with_state(state.clone(), rate_limit::limit_rate));
    let (api, document) = describe(work).split_for_parts();
    let routes = api.merge(page::router()).merge(docs::router(document));
    finish(routes.layer(middleware::from_fn_with_state(state.clone(), authenticate::authenticate)), state)
}

/// Adds what all routes have in common.
fn finish(routes: Router<AppState>, state: AppState) -> Router {
    let cors = cors_layer(&state.config().cors_origins);
    let max_body_bytes = usize::try_from(state.config().limits.max_body_bytes).unwrap_or(usize::MAX);
    routes
        .fallback(|| async { ApiError::NoSuchPath })
        .method_not_allowed_fallback(|request: Request| async move {
            ApiError::MethodNotAllowed { method: request.method().to_string() }
        })
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(problem::PanicReply(state.clone())))
        .layer(middleware::from_fn(open_inference::name_errors))
        .layer(zstd_layer())
        .layer(gzip_layer())
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
        .layer(cors)
        .layer(middleware::map_response_with_state(state.clone(), reply_headers::protect))
        .with_state(state)
}

/// The routes that the `OpenAPI` document describes, each listed once.
fn api() -> OpenApiRouter<AppState> {
    describe(work())
}

fn describe(work: OpenApiRouter<AppState>) -> OpenApiRouter<AppState> {
    let mut routes = OpenApiRouter::with_openapi(docs::base()).merge(work).merge(operations());
    docs::open_flattened_objects(routes.get_openapi_mut());
    docs::describe_keys(routes.get_openapi_mut());
    routes
}

/// What clients come for, as often as their rate allows.
fn work() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(features::post_features))
        .routes(routes!(correspondence::post_correspondence))
        .merge(models::routes())
        .merge(open_inference::inference())
        .merge(open_inference::descriptions())
        .merge(open_inference::administration())
}

/// What must answer whatever the load.
fn operations() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::get_metrics))
        .merge(open_inference::health())
}

/// Compresses with zstd what is not a picture, where a client asks for it.
///
/// A reply of numbers loses about half its size in any form, at hundreds of megabytes a second.
fn zstd_layer() -> CompressionLayer<impl Predicate> {
    let is_dense = |content_type: &str| content_type.starts_with("image/");
    CompressionLayer::new().no_gzip().quality(CompressionLevel::Fastest).compress_when(content(move |it| !is_dense(it)))
}

/// Compresses text with gzip, where a client asks for it and not for zstd.
///
/// Not numbers as bytes: gzip is slower than most networks, and many clients ask for it without their users knowing.
fn gzip_layer() -> CompressionLayer<impl Predicate> {
    let is_text =
        |content_type: &str| content_type.starts_with("application/json") || content_type.starts_with("text/");
    CompressionLayer::new().no_zstd().quality(CompressionLevel::Fastest).compress_when(content(is_text))
}

/// Replies of some size whose type is one that `is_meant`.
fn content(is_meant: impl Fn(&str) -> bool + Clone) -> impl Predicate {
    const SMALLEST_BYTES: u64 = 1024;
    SizeAbove::new(SMALLEST_BYTES).and(move |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        is_meant(content_type.unwrap_or_default())
    })
}

/// Lets pages from these origins call the server and read its headers.
fn cors_layer(origins: &[CorsOrigin]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin.as_str() == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok()))
    };
    let exposed = features_reply::HEADERS.into_iter().chain([observe::REQUEST_ID, observe::SERVER_TIMING]);
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::ACCEPT,
            header::AUTHORIZATION,
            authenticate::API_KEY,
            observe::REQUEST_ID,
            observe::TRACEPARENT,
        ])
        .expose_headers(exposed.collect::<Vec<HeaderName>>())
}
