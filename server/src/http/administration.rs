//! What only those who run the server may do, and how they are told from everybody else.
//!
//! A request comes from an administrator if its extensions say so ([`Administrator`]). Whoever comes
//! in by the second listener (`--admin-listen`) is one; on the main listener it takes a key.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;

use super::state::AppState;
use super::{finish, models, open_inference, operations};
use crate::error::ApiError;

/// Marks a request of an administrator. Whoever has made sure of that puts it into the request's
/// extensions; nothing that a client sends can.
#[derive(Clone, Copy, Debug)]
pub(super) struct Administrator;

/// Lets only administrators pass.
///
/// # Errors
/// [`ApiError::NotAdministrator`] for everybody else.
pub(super) async fn require_administrator(request: Request, next: Next) -> Result<Response, ApiError> {
    if request.extensions().get::<Administrator>().is_none() {
        return Err(ApiError::NotAdministrator);
    }
    Ok(next.run(request).await)
}

/// What the second listener serves: everything about the server, and nothing that computes.
pub(super) fn router(state: AppState) -> Router {
    let routes = operations()
        .merge(models::routes())
        .merge(open_inference::descriptions())
        .merge(open_inference::administration());
    let (routes, _) = routes.split_for_parts();
    finish(routes.layer(middleware::from_fn(as_administrator)), state)
}

async fn as_administrator(mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Administrator);
    next.run(request).await
}
