//! Problems for wrong methods, which name the right one.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::extract::{MatchedPath, Request};

use super::request::RequestError;

/// The error of a path that does not take the request's method.
pub(super) fn method_not_allowed(request: &Request) -> RequestError {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    RequestError::MethodNotAllowed { method: request.method().to_string(), allowed: allowed_methods(path) }
}

/// Methods of a path template by the `OpenAPI` document. Pages are not in it, and answer GET.
fn allowed_methods(path: &str) -> &'static str {
    static METHODS: OnceLock<BTreeMap<String, &'static str>> = OnceLock::new();
    let methods = METHODS.get_or_init(|| {
        let paths = super::api().into_openapi().paths.paths.into_iter();
        paths.map(|(path, item)| (path, if item.post.is_some() { "POST" } else { "GET" })).collect()
    });
    methods.get(path).copied().unwrap_or("GET")
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
        assert!(!crate::http::api().into_openapi().paths.paths.values().any(both));
    }
}
