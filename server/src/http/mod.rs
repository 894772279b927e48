//! The wire: routes, bodies, parameters, replies.
//!
//! `request` reads bodies and parameters into valid values, the use cases in [`crate::serving`] do the work, `reply`
//! writes the negotiated format, and `problem` describes failures. The middleware in `guard` refuses requests before
//! they reach a handler; `observe` wraps every request. This is the only module that uses axum and the wire types.

mod client_address;
mod correspondence;
mod cors;
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
mod wrong_method;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{Extensions, HeaderMap, StatusCode, Version, header};
use axum::middleware;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::predicate::{Predicate, SizeAbove};
use tower_http::compression::{CompressionLayer, CompressionLevel};
use tower_http::cors::CorsLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::docs::document;
pub(crate) use self::guard::connections::{ListenerRole, Unfinished, serve};
use self::guard::{administration, authenticate, rate_limit};
pub use self::problem::{Problem, ProblemKind, ToProblem};
pub use self::request::{JsonError, MalformedBody, RequestError, TextPosition};
pub use self::state::{AppState, Phase, StateError};

/// All routes of the server, without a listener.
pub fn router(state: AppState) -> Router {
    let work = work_routes().route_layer(middleware::from_fn_with_state(state.clone(), rate_limit::limit_rate));
    let (api, document) = described_routes(work).split_for_parts();
    let routes = api.merge(page::router()).merge(docs::router(docs::ordered(&document)));
    let routes = routes.layer(middleware::from_fn_with_state(state.clone(), authenticate::authenticate));
    let cors = cors::cors_layer(&state.config().cors_origins);
    with_shared_layers(routes, Some(cors), state)
}

/// Routes of the second listener, for administrators: probes, metrics, models and administration, no inference. Pages
/// of other origins can neither read nor change anything there, whatever `--cors-origin` allows.
pub(crate) fn admin_router(state: AppState) -> Router {
    let routes = operations_routes()
        .merge(models::routes())
        .merge(open_inference::descriptions())
        .merge(open_inference::administration());
    let (routes, _) = routes.split_for_parts();
    with_shared_layers(routes.layer(middleware::from_fn(administration::as_administrator)), None, state)
}

/// Adds the fallbacks and layers that all routes share.
fn with_shared_layers(routes: Router<AppState>, cors: Option<CorsLayer>, state: AppState) -> Router {
    let max_body_bytes = usize::try_from(state.config().limits.max_body_bytes).unwrap_or(usize::MAX);
    routes
        .fallback(|| async { RequestError::NoSuchPath })
        .method_not_allowed_fallback(|request: Request| async move { wrong_method::method_not_allowed(&request) })
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(CatchPanicLayer::custom(observe::PanicReply(state.clone())))
        .layer(middleware::from_fn(open_inference::add_error_member))
        .layer(zstd_layer())
        .layer(gzip_layer())
        .layer(middleware::from_fn_with_state(state.clone(), observe::observe))
        .layer(option_layer(cors))
        .layer(middleware::map_response_with_state(state.clone(), reply::set_default_headers))
        .with_state(state)
}

/// Routes that the `OpenAPI` document describes, each listed once.
fn api() -> OpenApiRouter<AppState> {
    described_routes(work_routes())
}

fn described_routes(work: OpenApiRouter<AppState>) -> OpenApiRouter<AppState> {
    let mut routes = OpenApiRouter::with_openapi(docs::base_document()).merge(work).merge(operations_routes());
    docs::open_flattened_objects(routes.get_openapi_mut());
    docs::describe_keys(routes.get_openapi_mut());
    routes
}

/// Routes that compute or administer, limited by each client's rate.
fn work_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(features::post_features))
        .routes(routes!(correspondence::post_correspondence))
        .merge(models::routes())
        .merge(open_inference::inference())
        .merge(open_inference::descriptions())
        .merge(open_inference::administration())
}

/// Probes and metrics, which answer at any load.
fn operations_routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(probes::livez))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::get_metrics))
        .merge(open_inference::health())
}

/// Compresses all replies but images with zstd, if the client accepts it.
///
/// Numbers shrink to about half their size in any form, at hundreds of megabytes a second.
fn zstd_layer() -> CompressionLayer<impl Predicate> {
    let is_compressed = |content_type: &str| content_type.starts_with("image/");
    CompressionLayer::new()
        .no_gzip()
        .quality(CompressionLevel::Fastest)
        .compress_when(large_reply(move |it| !is_compressed(it)))
}

/// Compresses text with gzip, if the client accepts gzip and not zstd.
///
/// Binary numbers are left alone: gzip is slower than most networks, and many clients accept it by default.
fn gzip_layer() -> CompressionLayer<impl Predicate> {
    let is_text =
        |content_type: &str| content_type.starts_with("application/json") || content_type.starts_with("text/");
    CompressionLayer::new().no_zstd().quality(CompressionLevel::Fastest).compress_when(large_reply(is_text))
}

/// Selects replies of at least 1 KiB whose content type satisfies `has_type`.
fn large_reply(has_type: impl Fn(&str) -> bool + Clone) -> impl Predicate {
    const SMALLEST_BYTES: u64 = 1024;
    SizeAbove::new(SMALLEST_BYTES).and(move |_: StatusCode, _: Version, headers: &HeaderMap, _: &Extensions| {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        has_type(content_type.unwrap_or_default())
    })
}
