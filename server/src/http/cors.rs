//! Cross-origin requests: which pages may send what, and which headers of the replies they may read.

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::guard::authenticate;
use super::{features, observe, open_inference};
use crate::config::CorsOrigin;

/// Lets pages from these origins call the server and read its headers.
pub(super) fn cors_layer(origins: &[CorsOrigin]) -> CorsLayer {
    let allowed = if origins.iter().any(|origin| origin.as_str() == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin.as_str()).ok()))
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers([
            header::CONTENT_TYPE,
            header::CONTENT_ENCODING,
            header::ACCEPT,
            header::AUTHORIZATION,
            authenticate::API_KEY,
            observe::REQUEST_ID,
            observe::TRACEPARENT,
            open_inference::HEADER_LENGTH,
        ])
        .expose_headers(exposed().collect::<Vec<HeaderName>>())
}

/// Headers of replies that are not safelisted by CORS.
fn exposed() -> impl Iterator<Item = HeaderName> {
    features::HEADERS.into_iter().chain([
        observe::REQUEST_ID,
        observe::SERVER_TIMING,
        open_inference::HEADER_LENGTH,
        header::ALLOW,
        header::RETRY_AFTER,
        header::WWW_AUTHENTICATE,
    ])
}
