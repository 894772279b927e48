//! Problems as clients of this protocol read them: with a member `error`.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use crate::http::problem::Problem;

/// A problem document with the protocol's own member beside RFC 9457's.
#[derive(Serialize)]
struct NamedError<'a> {
    #[serde(flatten)]
    problem: &'a Problem,
    error: &'a str,
}

/// Adds `error` to the problems of all paths below `/v2`.
pub(in crate::http) async fn name_errors(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_ours = path == "/v2" || path.starts_with("/v2/");
    let mut response = next.run(request).await;
    if !is_ours {
        return response;
    }
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    // A struct of strings and numbers is always written.
    let body = serde_json::to_vec(&NamedError { problem: &problem, error: &problem.detail }).unwrap_or_default();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.map(|_| Body::from(body))
}
