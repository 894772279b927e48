//! Errors of requests that are refused before they are read.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};

use crate::api_keys::KeyRefusal;
use crate::http::problem::{self, ProblemKind, RETRY_AFTER, ToProblem};

/// A request that is refused before it is read.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum GuardError {
    #[error(transparent)]
    Unauthorized(#[from] KeyRefusal),
    #[error("loading and unloading models is not open to everybody")]
    NotAdministrator,
    #[error("a page in a browser asks, from another origin than the server's")]
    OtherOrigin,
    #[error("this client has sent too many requests")]
    RateLimited { wait: Duration },
    #[error("there are more than {limit} connections")]
    TooManyConnections { limit: usize },
}

impl IntoResponse for GuardError {
    fn into_response(self) -> Response<Body> {
        problem::response(&self, None)
    }
}

impl ToProblem for GuardError {
    fn kind(&self) -> ProblemKind {
        let kind = ProblemKind::new;
        match self {
            Self::Unauthorized(_) => kind(
                401,
                "unauthorized",
                "No valid API key",
                "Send a key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`; the operator of this server issues keys.",
            ),
            Self::NotAdministrator => kind(
                403,
                "not-administrator",
                "Not an administrator",
                "Start the server with --admin-listen and ask there, or use an API key of an administrator.",
            ),
            Self::OtherOrigin => kind(
                403,
                "other-origin",
                "Request of another origin",
                "Ask the administrators' listener from its own pages, or from a program.",
            ),
            Self::RateLimited { .. } => {
                kind(429, "rate-limited", "Too many requests", "Wait for Retry-After, and send requests more slowly.")
            }
            Self::TooManyConnections { .. } => {
                kind(503, "too-many-connections", "Too many connections", "Try again after Retry-After, or elsewhere.")
            }
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::TooManyConnections { limit } => Some(*limit as u64),
            Self::Unauthorized(_) | Self::NotAdministrator | Self::OtherOrigin | Self::RateLimited { .. } => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { wait } => Some(*wait),
            Self::TooManyConnections { .. } => Some(RETRY_AFTER),
            Self::Unauthorized(_) | Self::NotAdministrator | Self::OtherOrigin => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_when_to_retry() {
        let wait = Duration::from_secs(7);
        assert_eq!(GuardError::RateLimited { wait }.problem().retry_after, Some(wait));
        assert_eq!(GuardError::NotAdministrator.problem().retry_after, None);
    }
}
