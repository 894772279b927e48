//! The layer that lets each client ask for work as often as it may.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::authenticate::Caller;
use super::error::GuardError;
use crate::http::client_address::client_address;
use crate::http::state::AppState;

/// Lets a request pass if its client's rate allows for it.
///
/// # Errors
/// With the time to wait, if it does not.
pub(in crate::http) async fn limit_rate(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, GuardError> {
    // A key with a rate of its own has that, wherever it is used from.
    let caller = request.extensions().get::<Caller>();
    if let Some(turn) = caller.and_then(|Caller(key)| key.take_token()) {
        turn.map_err(|wait| GuardError::RateLimited { wait })?;
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
