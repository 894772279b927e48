//! What the server takes on: so many images at a time, in so much memory, and nothing that it could
//! not answer in time. What it cannot take on it refuses at once; nothing waits to be let in.
//!
//! A request takes memory for whatever it holds, and places only for images that must be computed: what is in the cache
//! needs no turn, and is answered however many wait for theirs.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::response::Response;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::RequestLimits;
use crate::error::ApiError;
use crate::metrics::{BudgetGauges, BudgetMetrics, BudgetName};

/// Bodies may take this part of the memory for work, on top of it: compressed images are small.
const BODIES_SHARE: u64 = 4;

/// The server's bounds on work under way.
#[derive(Clone)]
pub(super) struct Admission {
    images: Arc<Semaphore>,
    max_images: usize,
    memory: Budget,
    bodies: Budget,
}

impl Admission {
    pub(super) fn new(limits: &RequestLimits, metrics: &BudgetMetrics) -> Self {
        let max_images = limits.max_in_flight.min(Semaphore::MAX_PERMITS);
        let body_bytes = (limits.memory_bytes / BODIES_SHARE).max(limits.max_body_bytes);
        Self {
            images: Arc::new(Semaphore::new(max_images)),
            max_images,
            memory: Budget::new(limits.memory_bytes, metrics.for_budget(BudgetName::Work)),
            bodies: Budget::new(body_bytes, metrics.for_budget(BudgetName::Bodies)),
        }
    }

    /// A body that is about to arrive.
    pub(super) fn body(&self) -> ArrivingBody {
        ArrivingBody(Arc::new(Arriving {
            budget: self.bodies.clone(),
            taken: AtomicU64::new(0),
            refused: AtomicBool::new(false),
        }))
    }

    /// Begins a request, which holds nothing yet.
    pub(super) fn begin(&self) -> Admitted {
        Admitted(Arc::new(Held {
            places: Mutex::default(),
            images: Arc::clone(&self.images),
            max_images: self.max_images,
            memory: self.memory.clone(),
            reserved: AtomicU64::new(0),
        }))
    }
}

/// The bytes of one body, as many as have come so far. They are free again when the last clone is
/// dropped: after the answer.
#[derive(Clone)]
pub(super) struct ArrivingBody(Arc<Arriving>);

struct Arriving {
    budget: Budget,
    taken: AtomicU64,
    refused: AtomicBool,
}

impl ArrivingBody {
    /// `request` with a body that counts, and that ends early where there is no room for it.
    pub(super) fn of(&self, request: Request) -> Request {
        request.map(|body| Body::new(CountedBody { body, arriving: self.clone() }))
    }

    /// Why reading the body failed: not the client's fault, if there was no room.
    pub(super) fn explain(&self, error: ApiError) -> ApiError {
        if self.0.refused.load(Ordering::Relaxed) {
            return ApiError::Overloaded { retry_after: Duration::ZERO };
        }
        error
    }

    /// Makes room for bytes that a body becomes beside those that have come.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] if others hold it.
    pub(super) fn grow(&self, bytes: u64) -> Result<(), ApiError> {
        self.take(bytes).map_err(|_| ApiError::Overloaded { retry_after: Duration::ZERO })
    }

    fn take(&self, bytes: u64) -> Result<(), axum::Error> {
        if self.0.budget.take(bytes) {
            self.0.taken.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        self.0.refused.store(true, Ordering::Relaxed);
        Err(axum::Error::new(NoRoom))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.budget.give_back(*self.taken.get_mut());
    }
}

#[derive(Debug, thiserror::Error)]
#[error("there is no room for more bodies")]
struct NoRoom;

/// A body whose frames are counted.
struct CountedBody {
    body: Body,
    arriving: ArrivingBody,
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(context));
        let counted = frame.map(|frame| {
            let frame = frame?;
            self.arriving.take(frame.data_ref().map_or(0, Bytes::len) as u64)?;
            Ok(frame)
        });
        Poll::Ready(counted)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A request and what it was granted. Its places and its memory are free again when the last clone is
/// dropped: after the last byte of the reply.
#[derive(Clone)]
pub(super) struct Admitted(Arc<Held>);

struct Held {
    places: Mutex<Vec<OwnedSemaphorePermit>>,
    images: Arc<Semaphore>,
    max_images: usize,
    memory: Budget,
    reserved: AtomicU64,
}

impl Admitted {
    /// Takes places for this many images more. `wait` is how long they would have to wait for their turn, `time_left`
    /// how long they can.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] if there are too many already, or it would be in vain.
    pub(super) fn take_places(&self, images: usize, wait: Duration, time_left: Duration) -> Result<(), ApiError> {
        let overloaded = || ApiError::Overloaded { retry_after: wait };
        if images == 0 {
            return Ok(());
        }
        if !wait.is_zero() && wait >= time_left {
            return Err(overloaded());
        }
        let mut places = self.0.places.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = places.iter().map(OwnedSemaphorePermit::num_permits).sum();
        // A request with more images than fit at all still runs, alone.
        let permits = images.min(self.0.max_images - held) as u32;
        let more = Arc::clone(&self.0.images).try_acquire_many_owned(permits).map_err(|_| overloaded())?;
        places.push(more);
        Ok(())
    }

    /// Sets memory aside for this request, before it is allocated.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] if others hold it, [`ApiError::TooMuchMemory`] if there is never
    /// that much.
    pub(super) fn reserve(&self, bytes: u64) -> Result<(), ApiError> {
        let Held { memory, reserved, .. } = &*self.0;
        let limit = memory.limit();
        if bytes.saturating_add(reserved.load(Ordering::Relaxed)) > limit {
            return Err(ApiError::TooMuchMemory { bytes, limit });
        }
        if !memory.take(bytes) {
            return Err(ApiError::Overloaded { retry_after: Duration::ZERO });
        }
        reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps the request's places and memory until the reply is sent, or its reader has gone.
    pub(super) fn until_sent(self, response: Response) -> Response {
        response.map(|body| Body::new(HeldBody { body, _admitted: self }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.memory.give_back(*self.reserved.get_mut());
    }
}

/// A body that keeps something alive.
struct HeldBody {
    body: Body,
    _admitted: Admitted,
}

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// Bytes that can be taken and given back.
#[derive(Clone)]
struct Budget(Arc<Account>);

struct Account {
    limit: u64,
    taken: AtomicU64,
    metrics: BudgetGauges,
}

impl Budget {
    fn new(limit: u64, metrics: BudgetGauges) -> Self {
        metrics.set_limit(limit);
        Self(Arc::new(Account { limit, taken: AtomicU64::new(0), metrics }))
    }

    fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Whether there was room for `bytes`, which are then taken.
    fn take(&self, bytes: u64) -> bool {
        let Account { limit, taken, metrics } = &*self.0;
        let add = |now: u64| now.checked_add(bytes).filter(|sum| sum <= limit);
        let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if let Ok(before) = before {
            metrics.set_reserved(before + bytes);
        }
        before.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        let before = self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.0.metrics.set_reserved(before - bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const SOON: Duration = Duration::from_secs(1);

    fn admission(max_images: usize, memory_bytes: u64) -> Admission {
        Admission {
            images: Arc::new(Semaphore::new(max_images)),
            max_images,
            memory: Budget::new(memory_bytes, Metrics::new().budget.for_budget(BudgetName::Work)),
            bodies: Budget::new(10, Metrics::new().budget.for_budget(BudgetName::Bodies)),
        }
    }

    /// A request that needs so many places.
    fn admit(admission: &Admission, images: usize, wait: Duration) -> Result<Admitted, ApiError> {
        let admitted = admission.begin();
        admitted.take_places(images, wait, SOON).map(|()| admitted)
    }

    #[test]
    fn places_are_given_back() {
        let admission = admission(2, 100);
        let two = admit(&admission, 2, Duration::ZERO).unwrap();
        assert!(matches!(admit(&admission, 1, Duration::ZERO), Err(ApiError::Overloaded { .. })));
        drop(two);
        let large = admit(&admission, 5, Duration::ZERO).expect("a large request runs alone");
        assert!(large.take_places(1, Duration::ZERO, SOON).is_ok(), "it has all there is");
        assert!(admit(&admission, 1, Duration::ZERO).is_err());
    }

    #[test]
    fn what_need_not_be_computed_needs_no_place() {
        let admission = admission(1, 100);
        let _all = admit(&admission, 1, Duration::ZERO).unwrap();
        let hit = admit(&admission, 0, Duration::from_secs(9)).unwrap();
        assert!(hit.reserve(60).is_ok());
        assert!(matches!(hit.reserve(60), Err(ApiError::TooMuchMemory { .. })), "but memory");
    }

    #[test]
    fn what_would_come_too_late_is_refused() {
        let wait = Duration::from_secs(3);
        let refused = admit(&admission(2, 100), 1, wait);
        assert!(matches!(refused, Err(ApiError::Overloaded { retry_after }) if retry_after == wait));
    }

    #[test]
    fn memory_is_taken_once_and_given_back() {
        let admission = admission(9, 100);
        let one = admit(&admission, 1, Duration::ZERO).unwrap();
        let other = admit(&admission, 1, Duration::ZERO).unwrap();
        assert!(one.reserve(60).is_ok());
        assert!(matches!(other.reserve(60), Err(ApiError::Overloaded { .. })));
        assert!(matches!(one.reserve(60), Err(ApiError::TooMuchMemory { limit: 100, .. })));
        assert!(other.reserve(40).is_ok());
        drop(one);
        assert!(other.reserve(60).is_ok());
    }

    #[tokio::test]
    async fn bodies_are_counted_as_they_come() {
        let admission = admission(9, 100);
        let read = async |arriving: &ArrivingBody, text: &'static str| {
            axum::body::to_bytes(arriving.of(Request::new(Body::from(text))).into_body(), 99).await
        };
        let (one, other) = (admission.body(), admission.body());
        assert_eq!(read(&one, "six by").await.unwrap(), "six by");
        assert!(read(&other, "six by").await.is_err());
        assert!(matches!(other.explain(ApiError::EmptyBody), ApiError::Overloaded { .. }));
        assert!(matches!(one.explain(ApiError::EmptyBody), ApiError::EmptyBody));
        drop(one);
        assert!(read(&admission.body(), "six by").await.is_ok());
    }

    #[tokio::test]
    async fn a_reply_keeps_its_place_until_it_is_sent() {
        let admission = admission(1, 100);
        let admitted = admit(&admission, 1, Duration::ZERO).unwrap();
        let response = admitted.until_sent(Response::new(Body::from("text")));
        assert_eq!(response.body().size_hint().exact(), Some(4), "its length is still known");
        assert!(admit(&admission, 1, Duration::ZERO).is_err());
        assert_eq!(axum::body::to_bytes(response.into_body(), 9).await.unwrap(), "text");
        assert!(admit(&admission, 1, Duration::ZERO).is_ok());
    }
}
