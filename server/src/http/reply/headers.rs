//! What every reply tells browsers and caches, whatever it is a reply to.

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;

use crate::http::state::AppState;

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// A reply is data: where a browser shows it as a page, nothing in it runs, loads or is framed.
const NOTHING: HeaderValue = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");

/// Adds the headers to a reply, but for those that its handler has set.
pub(in crate::http) async fn protect(State(app): State<AppState>, mut response: Response) -> Response {
    let for_others = !app.config().cors_origins.is_empty();
    add(response.headers_mut(), for_others);
    response
}

/// Adds the headers. `for_others` says whether pages of other origins may have the reply at all.
pub(in crate::http) fn add(headers: &mut HeaderMap, for_others: bool) {
    let resource_policy = if for_others { "cross-origin" } else { "same-origin" };
    let defaults = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CONTENT_SECURITY_POLICY, NOTHING),
        (RESOURCE_POLICY, HeaderValue::from_static(resource_policy)),
        // Features belong to whoever sent the picture.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(value);
    }
}
