//! Problems of this protocol, which have the additional member `error`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::http::problem::Problem;

/// A problem document with the protocol's member beside those of RFC 9457.
#[derive(Serialize)]
struct ErrorDocument<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    error: &'a str,
}

/// Adds `error` to the problems of all paths below `/v2`.
pub(in crate::http) async fn add_error_member(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_open_inference = path == "/v2" || path.starts_with("/v2/");
    let mut response = next.run(request).await;
    if !is_open_inference {
        return response;
    }
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    // Serialising a struct of strings and numbers cannot fail.
    let body = serde_json::to_vec(&ErrorDocument { problem: &problem, error: &problem.detail }).unwrap_or_default();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| Body::from(body))
}
