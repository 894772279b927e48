//! The extractor that reads a request's body within its limits of size, memory and time.

use std::time::{Duration, Instant};

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;

use super::{RequestError, metered};
use crate::http::observe::RequestContext;
use crate::http::state::AppState;
use crate::serving::ServingError;
use crate::serving::admission::BodyMemory;

/// A body that routes read.
pub(in crate::http) trait ReadBody: Sized {
    /// Reads the query and the body of a request, whose memory is taken as it arrives.
    fn read(app: &AppState, reading: Reading) -> impl Future<Output = Result<Self, RequestError>> + Send;
}

/// A request whose body is about to be read.
pub(in crate::http) struct Reading {
    pub(in crate::http) request: Request,
    pub(in crate::http) context: RequestContext,
    /// Memory for what the body becomes beside the bytes that arrive.
    pub(in crate::http) memory: BodyMemory,
}

/// A request whose body was read.
pub(in crate::http) struct ReadRequest<B> {
    pub(in crate::http) body: B,
    pub(in crate::http) headers: HeaderMap,
    pub(in crate::http) context: RequestContext,
    /// Held until the request is answered.
    _memory: BodyMemory,
}

impl<B: ReadBody> FromRequest<AppState> for ReadRequest<B> {
    type Rejection = RequestError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, RequestError> {
        // A server without models reads no bodies.
        app.service().registry()?;
        let context = RequestContext::from_request(&request)?;
        let headers = request.headers().clone();
        let memory = app.service().body_memory();
        let request = metered(request, &memory);
        let body = B::read(app, Reading { request, context: context.clone(), memory: memory.clone() });
        let body = within(&context, app.config().limits.body_timeout, body).await.map_err(|error| {
            // The body broke off because there was no memory for it.
            if memory.was_refused() { ServingError::Overloaded { retry_after: Duration::ZERO }.into() } else { error }
        })?;
        Ok(Self { body, headers, context, _memory: memory })
    }
}

/// Waits for a body as long as `limit`, but not past the request's own deadline.
pub(in crate::http) async fn within<T>(
    context: &RequestContext,
    limit: Duration,
    body: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    let until = context.work.deadline.min(Instant::now() + limit);
    let timeout = tokio::time::timeout_at(until.into(), body).await;
    timeout.unwrap_or(Err(RequestError::BodyTooSlow { limit }))
}
