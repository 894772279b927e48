//! The page at `/`, to try the API in a browser. Its files are compiled into the program.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::http::state::AppState;

/// Scripts and styles come from this server alone; images may also be `data:` and `blob:` URLs.
const POLICY: &str = "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'";

pub(in crate::http) fn router() -> Router<AppState> {
    let file = |content_type: &'static str, text: &'static str| {
        get(move || async move {
            let headers = [
                (header::CONTENT_TYPE, content_type),
                (header::CONTENT_SECURITY_POLICY, POLICY),
                // The page changes with the server's version.
                (header::CACHE_CONTROL, "no-cache"),
            ];
            (headers, text).into_response()
        })
    };
    Router::new()
        .route("/", file("text/html; charset=utf-8", include_str!("index.html")))
        .route("/app.js", file("text/javascript; charset=utf-8", include_str!("app.js")))
        .route("/style.css", file("text/css; charset=utf-8", include_str!("style.css")))
}
