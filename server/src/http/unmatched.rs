//! Replies to requests that no route takes: every one is a problem that says what could be asked instead.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::request::RequestError;

/// The error of a path that does not take the request's method.
pub(super) fn method_not_allowed(request: &Request) -> RequestError {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    RequestError::MethodNotAllowed { method: request.method().to_string(), allowed: allowed_methods(path) }
}

/// Methods of a path template by the `OpenAPI` document; the pages, which are not in it, are read.
fn allowed_methods(path: &str) -> &'static str {
    static METHODS: OnceLock<BTreeMap<String, &'static str>> = OnceLock::new();
    let methods = METHODS.get_or_init(|| {
        let paths = super::document().paths.paths.into_iter();
        paths.map(|(path, item)| (path, if item.post.is_some() { "POST" } else { "GET" })).collect()
    });
    methods.get(path).copied().unwrap_or("GET")
}

/// Middleware that makes a problem of every 404 that is none, such as those of the files below `/docs`.
pub(super) async fn complete_problem(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let is_problem = response.extensions().get::<Problem>().is_some();
    if response.status() == StatusCode::NOT_FOUND && !is_problem {
        return RequestError::NoSuchPath.into_response();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_those_of_the_routes() {
        for (path, method) in [
            ("/features", "POST"),
            ("/v2/models/{name}/infer", "POST"),
            ("/v2/repository/index", "POST"),
            ("/models/{name}", "GET"),
            ("/docs/{*rest}", "GET"),
        ] {
            assert_eq!(allowed_methods(path), method, "{path}");
        }
        // A path with both would need both in the message.
        let both = |item: &utoipa::openapi::PathItem| item.get.is_some() && item.post.is_some();
        assert!(!super::super::document().paths.paths.values().any(both));
    }
}
