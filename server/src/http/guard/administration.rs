//! What only those who run the server may do, and how they are told from everybody else.
//!
//! A request comes from an administrator if its extensions say so ([`Administrator`]). Whoever comes
//! in by the second listener (`--admin-listen`) is one; on the main listener it takes a key.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;

use super::error::GuardError;

/// Marks a request of an administrator. Whoever has made sure of that puts it into the request's
/// extensions; nothing that a client sends can.
#[derive(Clone, Copy, Debug)]
pub(in crate::http) struct Administrator;

/// Lets only administrators pass.
///
/// # Errors
/// [`GuardError::NotAdministrator`] for everybody else.
pub(in crate::http) async fn require_administrator(request: Request, next: Next) -> Result<Response, GuardError> {
    if request.extensions().get::<Administrator>().is_none() {
        return Err(GuardError::NotAdministrator);
    }
    Ok(next.run(request).await)
}

/// Marks every request as an administrator's: the layer of the second listener.
pub(in crate::http) async fn as_administrator(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Administrator);
    next.run(request).await
}
