//! Authentication: if the server has API keys, every route that is not in [`OPEN`] needs one.

use std::sync::Arc;
use std::time::SystemTime;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, header};
use axum::middleware::Next;
use axum::response::Response;

use super::administration::Administrator;
use super::error::GuardError;
use crate::api_keys::{ApiKey, KeyRefusal};
use crate::http::observe::RequestContext;
use crate::http::state::AppState;

pub(in crate::http) const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Routes that need no key: probes, the page and the API's description. All others need one.
const OPEN: [&str; 11] = [
    "/livez",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
    "/",
    "/app.js",
    "/style.css",
    "/openapi.json",
    "/docs",
    "/docs/",
    "/docs/{*rest}",
];

/// The API key that a request was sent with.
#[derive(Clone, Debug)]
pub(in crate::http) struct Caller(pub(in crate::http) Arc<ApiKey>);

/// Passes a request that needs no key or has a valid one.
///
/// # Errors
/// [`GuardError::Unauthorized`] for all other requests.
pub(in crate::http) async fn authenticate(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Result<Response, GuardError> {
    let sent = take_key(request.headers_mut());
    // A path that matches no route answers 404 without a key.
    let is_locked = request.extensions().get::<MatchedPath>().is_some_and(|path| !is_open(path.as_str()));
    if let Some(keys) = app.api_keys().filter(|_| is_locked) {
        let key = keys.authenticate(&sent.ok_or(KeyRefusal::Missing)?, SystemTime::now())?;
        app.metrics().keys.count_request(key.name());
        if let Some(context) = request.extensions().get::<RequestContext>() {
            context.notes.set_key(Arc::clone(key.name()));
        }
        if key.is_admin() {
            request.extensions_mut().insert(Administrator);
        }
        request.extensions_mut().insert(Caller(key));
    }
    Ok(next.run(request).await)
}

/// True if the routes of this path template need no key.
pub(in crate::http) fn is_open(path: &str) -> bool {
    OPEN.contains(&path)
}

/// Removes the key from a request's head, so that nothing that handles or logs the request later can show it. Different
/// keys in one request give an empty key, which is never valid.
fn take_key(headers: &mut HeaderMap) -> Option<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> =
        headers.get_all(header::AUTHORIZATION).iter().filter_map(|it| bearer(it.as_bytes())).collect();
    keys.extend(headers.get_all(&API_KEY).iter().map(|value| value.as_bytes().to_owned()));
    headers.remove(header::AUTHORIZATION);
    headers.remove(&API_KEY);
    let key = keys.pop()?;
    if keys.iter().all(|other| *other == key) { Some(key) } else { Some(Vec::new()) }
}

/// The token of `Bearer TOKEN`; `None` for other schemes.
fn bearer(value: &[u8]) -> Option<Vec<u8>> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(headers: &[(&str, &str)]) -> Option<String> {
        let pairs = headers.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap()));
        let mut headers: HeaderMap = pairs.collect();
        let key = take_key(&mut headers);
        assert!(!headers.contains_key(header::AUTHORIZATION) && !headers.contains_key(&API_KEY), "{headers:?}");
        key.map(|key| String::from_utf8(key).unwrap())
    }

    #[test]
    fn a_key_is_read_from_either_header() {
        assert_eq!(key(&[("authorization", "Bearer k")]).as_deref(), Some("k"));
        assert_eq!(key(&[("authorization", "bearer  k ")]).as_deref(), Some("k"));
        assert_eq!(key(&[("x-api-key", "k")]).as_deref(), Some("k"));
        assert_eq!(key(&[("authorization", "Basic dTpw"), ("x-api-key", "k")]).as_deref(), Some("k"));
        assert_eq!(key(&[("authorization", "Bearer k"), ("x-api-key", "k")]).as_deref(), Some("k"));
        assert_eq!(key(&[("authorization", "Basic dTpw")]), None);
        assert_eq!(key(&[]), None);
    }

    #[test]
    fn two_different_keys_are_no_valid_key() {
        assert_eq!(key(&[("authorization", "Bearer k"), ("x-api-key", "l")]).as_deref(), Some(""));
        assert_eq!(key(&[("x-api-key", "k"), ("x-api-key", "l")]).as_deref(), Some(""));
    }
}
