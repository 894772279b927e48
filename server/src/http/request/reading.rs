//! Extractor that reads a request's body within its limits of size, memory and time.

use std::time::{Duration, Instant};

use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;

use super::{RequestError, metered};
use crate::http::observe::RequestContext;
use crate::http::state::AppState;
use crate::serving::ServingError;
use crate::serving::admission::BodyMemory;

/// A request body that [`ReadRequest`] can extract.
pub(in crate::http) trait ReadBody: Sized {
    /// Reads the query and the body of a request, whose memory is reserved as it arrives.
    fn read(app: &AppState, reading: Reading) -> impl Future<Output = Result<Self, RequestError>> + Send;
}

/// A request whose body is about to be read.
pub(in crate::http) struct Reading {
    pub(in crate::http) request: Request,
    pub(in crate::http) context: RequestContext,
    /// Memory for data that the body is expanded to.
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
        // Bodies are not read until the models are loaded.
        app.service().registry()?;
        let context = RequestContext::from_request(&request)?;
        let headers = request.headers().clone();
        let memory = app.service().body_memory();
        let request = metered(request, &memory);
        let body = B::read(app, Reading { request, context: context.clone(), memory: memory.clone() });
        let body = read_within(&context, app.config().limits.body_timeout, body).await.map_err(|error| {
            // Reading failed because there was no memory for the body.
            if memory.was_refused() { ServingError::Overloaded { retry_after: Duration::ZERO }.into() } else { error }
        })?;
        Ok(Self { body, headers, context, _memory: memory })
    }
}

/// Waits for a body until `limit` or the request's deadline has passed.
async fn read_within<T>(
    context: &RequestContext,
    limit: Duration,
    body: impl Future<Output = Result<T, RequestError>>,
) -> Result<T, RequestError> {
    let until = context.work.deadline.min(Instant::now() + limit);
    let timeout = tokio::time::timeout_at(until.into(), body).await;
    timeout.unwrap_or(Err(RequestError::BodyTooSlow { limit }))
}
