//! Memory for the bodies of requests while they arrive, before anything is known of them.
//!
//! A body that drips in must not keep others from being worked on, so it takes no place among the
//! requests that were taken on (`admission`). What has arrived of it is in memory all the same;
//! here is its bound.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

use super::state::AppState;
use crate::error::ApiError;
use crate::metrics::Refusal;

/// Counts the bytes of a request's body until there is an answer.
///
/// # Errors
/// [`ApiError::Overloaded`] if bodies take all the memory that they may.
pub(super) async fn limit_bodies(
    State(app): State<AppState>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let share = app.body_memory().share();
    let response = next.run(request.map(|body| Body::new(CountedBody { body, share: Arc::clone(&share) }))).await;
    if share.refused.load(Ordering::Relaxed) {
        // The handler has seen a broken body, and does not know why.
        app.metrics().http.refused(Refusal::BodyMemory);
        return Err(ApiError::Overloaded { retry_after: Duration::ZERO });
    }
    Ok(response)
}

/// Bytes of all bodies.
#[derive(Clone)]
pub(super) struct BodyMemory(Arc<Account>);

struct Account {
    limit: u64,
    taken: AtomicU64,
}

impl BodyMemory {
    pub(super) fn new(limit: u64) -> Self {
        Self(Arc::new(Account { limit, taken: AtomicU64::new(0) }))
    }

    fn share(&self) -> Arc<Share> {
        Arc::new(Share { memory: self.clone(), taken: AtomicU64::new(0), refused: AtomicBool::new(false) })
    }
}

/// What one body has of it, given back when it is dropped.
struct Share {
    memory: BodyMemory,
    taken: AtomicU64,
    refused: AtomicBool,
}

impl Share {
    fn take(&self, bytes: u64) -> Result<(), NoMemory> {
        let Account { limit, taken } = &*self.memory.0;
        let add = |now: u64| now.checked_add(bytes).filter(|sum| sum <= limit);
        if taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_err() {
            self.refused.store(true, Ordering::Relaxed);
            return Err(NoMemory);
        }
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.0.taken.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bodies take all the memory that they may")]
struct NoMemory;

/// A body whose bytes are counted as they arrive.
struct CountedBody {
    body: Body,
    share: Arc<Share>,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
        let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len);
        self.share.take(bytes as u64).map_err(axum::Error::new)?;
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(share: &Arc<Share>, bytes: usize) -> bool {
        let body = CountedBody { body: Body::from(vec![0; bytes]), share: Arc::clone(share) };
        body.collect().await.is_ok()
    }

    #[tokio::test]
    async fn memory_is_given_back_when_the_request_is_answered() {
        let memory = BodyMemory::new(100);
        let (one, other) = (memory.share(), memory.share());
        assert!(read(&one, 70).await);
        assert!(!read(&other, 40).await);
        assert!(other.refused.load(Ordering::Relaxed) && !one.refused.load(Ordering::Relaxed));
        assert!(read(&memory.share(), 30).await, "what is left is for the smaller");
        drop(one);
        assert!(read(&other, 100).await);
    }
}
