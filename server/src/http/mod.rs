//! The wire: routes, bodies, parameters, replies.
//!
//! `request` reads bodies and parameters into valid values, the use cases in [`crate::serving`] do the work, `reply`
//! writes the format that was asked for, and `problem` says what went wrong. `guard` stands before all handlers, `observe`
//! around them. This is the only module that knows axum and the wire types.

mod client_address;
mod correspondence;
mod docs;
mod features;
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod models;
mod observe;
pub mod offline;
mod open_inference;
mod page;
mod probes;
mod problem;
mod reply;
mod request;
mod schema;
mod state;

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

pub use self::docs::document;
pub(crate) use self::guard::connections::{ListenerRole, Unfinished, serve};
use self::guard::{administration, authenticate, rate_limit};
pub use self::problem::{Problem, ProblemKind, ToProblem};
pub use self::request::RequestError;
pub use self::state::{AppState, Phase, StateError};
use crate::config::CorsOrigin;

/// The whole server, without a listener.
pub fn router(state: AppState) -> Router {
    let work = work().route_layer(middleware::from_fn_with_state(state.clone(), rate_limit::limit_rate));
    let (api, document) = describe(work).split_for_parts();
    let routes = api.merge(page::router()).merge(docs::router(document));
    finish(routes.layer(middleware::from_fn_with_state(state.clone(), authenticate::authenticate)), state)
}

/// The second listener's routes, for administrators: everything about the server, and nothing that computes.
pub(crate) fn admin_router(state: AppState) -> Router {
    let routes = operations()
        .merge(models::routes())
        .merge(open_inference::descriptions())
        .merge(open_inference::administration());
    let (routes, _) = routes.split_for_parts();
    finish(routes.layer(middleware::from_fn(administration::as_administrator)), state)
}

/// Adds what all routes have in common.
fn finish(routes: Router<AppState>, state: AppState) -> Router {
    let cors = cors_layer(&state.config().cors_origins);
    let max_body_bytes = usize::try_from(state.config().limits.max_body_bytes).unwrap_or(usize::MAX);
    routes
        .fallback(|| async { RequestError::NoSuchPath })
        .method_not_allowed_fallback(|request: Request| async move {
            RequestError::MethodNotAllowed { method: request.method().to_string() }
        })
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(observe::PanicReply(state.clone())))
        .layer(middleware::from_fn(open_inference::name_errors))
        .layer(zstd_layer())
        .layer(gzip_layer())
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
        .layer(cors)
        .layer(middleware::map_response_with_state(state.clone(), reply::protect))
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
    let exposed = features::HEADERS.into_iter().chain([observe::REQUEST_ID, observe::SERVER_TIMING]);
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
