//! Routes for administrators only.
//!
//! A request is an administrator's if its extensions contain [`Administrator`]. Every request to the second listener
//! (`--admin-listen`) is; on the main listener it needs the key of an administrator.

use axum::extract::Request;
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

/// Marks every request as an administrator's. Layer of the second listener.
pub(in crate::http) async fn as_administrator(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Administrator);
    next.run(request).await
}
