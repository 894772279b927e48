//! Headers of all replies, for browsers and caches.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::http::state::AppState;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Policy of a reply that a browser shows as a page: nothing in it runs, loads or is framed.
const NO_CONTENT_POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Middleware that adds the headers to a reply, except those that its handler has set.
pub(in crate::http) async fn set_default_headers(State(app): State<AppState>, mut response: Response) -> Response {
    let for_others = !app.config().cors_origins.is_empty();
    add_default_headers(response.headers_mut(), for_others);
    response
}

/// Adds the headers that are not set. If `for_others`, pages of other origins may read the reply.
pub(in crate::http) fn add_default_headers(headers: &mut HeaderMap, for_others: bool) {
    let resource_policy = if for_others { "cross-origin" } else { "same-origin" };
    let defaults = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, NO_CONTENT_POLICY),
        (RESOURCE_POLICY, HeaderValue::from_static(resource_policy)),
        // Features are private to the client that sent the image.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(value);
    }
}
