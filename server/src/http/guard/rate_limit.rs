//! Layer that limits the rate of each client's requests.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::authenticate::Caller;
use super::error::GuardError;
use crate::http::client_address::client_address;
use crate::http::state::AppState;

/// Passes a request if its client's rate allows it.
///
/// # Errors
/// [`GuardError::RateLimited`] with the time to wait.
pub(in crate::http) async fn limit_rate(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, GuardError> {
    // The rate of a key replaces the rate of the address.
    let caller = request.extensions().get::<Caller>();
    if let Some(taken) = caller.and_then(|Caller(key)| key.take_token()) {
        taken.map_err(|wait| GuardError::RateLimited { wait })?;
    } else if let Some(rates) = app.client_rates()
        && let Some(ConnectInfo(peer)) = request.extensions().get::<ConnectInfo<SocketAddr>>()
    {
        let client = client_address(peer.ip(), request.headers(), &app.config().rates.trusted_proxies);
        if let Err(wait) = rates.check(client) {
            return Err(GuardError::RateLimited { wait });
        }
    }
    Ok(next.run(request).await)
}
