//! Routes for administrators only.
//!
//! A request is an administrator's if its extensions contain [`Administrator`]. Every request to the second listener
//! (`--admin-listen`) is; on the main listener it needs the key of an administrator.

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;

use super::error::GuardError;

/// Extension that marks the request of an administrator. Middleware inserts it after its check; nothing that a client
/// sends can.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Administrator;

/// Passes requests of administrators.
///
/// # Errors
/// [`GuardError::NotAdministrator`] for all other requests.
pub(in crate::http) async fn require_administrator(request: Request, next: Next) -> Result<Response, GuardError> {
    if request.extensions().get::<Administrator>().is_none() {
        return Err(GuardError::NotAdministrator);
    }
    Ok(next.run(request).await)
}

/// Marks every request as an administrator's, unless a page of another origin sent it: a browser on the machine of an
/// operator reaches this listener, whatever page it shows. Layer of the second listener.
///
/// # Errors
/// [`GuardError::OtherOrigin`] for requests that a browser sends for such a page.
pub(in crate::http) async fn as_administrator(mut request: Request, next: Next) -> Result<Response, GuardError> {
    if is_of_other_origin(request.headers()) {
        return Err(GuardError::OtherOrigin);
    }
    request.extensions_mut().insert(Administrator);
    Ok(next.run(request).await)
}

/// True for requests that browsers say come from another origin (Fetch Metadata), and for those of browsers without
/// Fetch Metadata that name any origin: nothing on this listener is called by pages of its own.
fn is_of_other_origin(headers: &HeaderMap) -> bool {
    match headers.get("sec-fetch-site") {
        Some(site) => site != "same-origin" && site != "none",
        None => headers.contains_key(header::ORIGIN),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn pages_of_other_origins_are_known() {
        for (expected, name, value) in [
            (true, "sec-fetch-site", "cross-site"),
            (true, "sec-fetch-site", "same-site"),
            (false, "sec-fetch-site", "same-origin"),
            (false, "sec-fetch-site", "none"),
            (true, "origin", "null"),
            (false, "user-agent", "curl/8"),
        ] {
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]);
            assert_eq!(is_of_other_origin(&headers), expected, "{name}: {value}");
        }
    }
}
