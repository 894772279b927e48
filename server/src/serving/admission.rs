//! Admission: bounds the images and the memory under way, and refuses what could not be answered in time.
//!
//! A request reserves memory for all that it holds, and takes slots only for images that must be computed: an answer
//! from the cache needs none. A request that cannot be admitted is refused at once; nothing waits.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ServingError;
use crate::config::RequestLimits;
use crate::metrics::{BudgetGauges, BudgetMetrics, BudgetName};

/// Divisor of the memory for work that gives the additional memory for bodies: compressed images are small.
const BODIES_SHARE: u64 = 4;

/// The server's bounds on work under way.
#[derive(Clone)]
pub(crate) struct Admission {
    images: Arc<Semaphore>,
    max_images: usize,
    memory: Budget,
    bodies: Budget,
}

impl Admission {
    pub(crate) fn new(limits: &RequestLimits, metrics: &BudgetMetrics) -> Self {
        let max_images = limits.max_in_flight.min(Semaphore::MAX_PERMITS);
        let body_bytes = (limits.memory_bytes / BODIES_SHARE).max(limits.max_body_bytes);
        Self {
            images: Arc::new(Semaphore::new(max_images)),
            max_images,
            memory: Budget::new(limits.memory_bytes, metrics.for_budget(BudgetName::Work)),
            bodies: Budget::new(body_bytes, metrics.for_budget(BudgetName::Bodies)),
        }
    }

    /// Begins a body, which holds no memory yet.
    pub(crate) fn body(&self) -> BodyMemory {
        BodyMemory(Arc::new(ArrivedBody {
            budget: self.bodies.clone(),
            taken: AtomicU64::new(0),
            was_refused: AtomicBool::new(false),
        }))
    }

    /// Begins a request, which holds nothing yet.
    pub(crate) fn begin(&self) -> Admitted {
        Admitted(Arc::new(Reservations {
            slots: Mutex::default(),
            images: Arc::clone(&self.images),
            max_images: self.max_images,
            memory: self.memory.clone(),
            reserved: AtomicU64::new(0),
        }))
    }
}

/// Memory for one body, as much as has arrived so far. It is released when the last clone is dropped, after the answer.
#[derive(Clone)]
pub(crate) struct BodyMemory(Arc<ArrivedBody>);

struct ArrivedBody {
    budget: Budget,
    taken: AtomicU64,
    was_refused: AtomicBool,
}

impl BodyMemory {
    /// Takes memory for bytes that have arrived, or that the body is expanded to.
    ///
    /// # Errors
    /// [`ServingError::Overloaded`] if other requests hold it.
    pub(crate) fn take(&self, bytes: u64) -> Result<(), ServingError> {
        if self.0.budget.take(bytes) {
            self.0.taken.fetch_add(bytes, Ordering::Relaxed);
            return Ok(());
        }
        self.0.was_refused.store(true, Ordering::Relaxed);
        Err(ServingError::Overloaded { retry_after: Duration::ZERO })
    }

    /// True if reading the body failed because there was no memory, and not because of the client.
    pub(crate) fn was_refused(&self) -> bool {
        self.0.was_refused.load(Ordering::Relaxed)
    }
}

impl Drop for ArrivedBody {
    fn drop(&mut self) {
        self.budget.release(*self.taken.get_mut());
    }
}

/// Slots and memory of an admitted request. They are released when the last clone is dropped, after the last byte of
/// the reply.
#[derive(Clone)]
pub(crate) struct Admitted(Arc<Reservations>);

struct Reservations {
    slots: Mutex<Vec<OwnedSemaphorePermit>>,
    images: Arc<Semaphore>,
    max_images: usize,
    memory: Budget,
    reserved: AtomicU64,
}

impl Admitted {
    /// Takes slots for `images` more. `wait` is the predicted time until they run, `time_left` the time to the
    /// deadline.
    ///
    /// # Errors
    /// [`ServingError::Overloaded`] if there are no slots, or the images could not run in time.
    pub(crate) fn take_slots(&self, images: usize, wait: Duration, time_left: Duration) -> Result<(), ServingError> {
        let overloaded = || ServingError::Overloaded { retry_after: wait };
        if images == 0 {
            return Ok(());
        }
        if !wait.is_zero() && wait >= time_left {
            return Err(overloaded());
        }
        let mut slots = self.0.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = slots.iter().map(OwnedSemaphorePermit::num_permits).sum();
        // A request with more images than there are slots runs alone.
        let permits = images.min(self.0.max_images - held) as u32;
        let more = Arc::clone(&self.0.images).try_acquire_many_owned(permits).map_err(|_| overloaded())?;
        slots.push(more);
        Ok(())
    }

    /// Reserves memory for this request, before it is allocated.
    ///
    /// # Errors
    /// [`ServingError::Overloaded`] if other requests hold it, [`ServingError::TooMuchMemory`] if it exceeds the limit
    /// of all requests.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<(), ServingError> {
        let Reservations { memory, reserved, .. } = &*self.0;
        let limit = memory.limit();
        if bytes.saturating_add(reserved.load(Ordering::Relaxed)) > limit {
            return Err(ServingError::TooMuchMemory { bytes, limit });
        }
        if !memory.take(bytes) {
            return Err(ServingError::Overloaded { retry_after: Duration::ZERO });
        }
        reserved.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Reservations {
    fn drop(&mut self) {
        self.memory.release(*self.reserved.get_mut());
    }
}

/// A limited number of bytes, which are taken and released.
#[derive(Clone)]
struct Budget(Arc<BudgetState>);

struct BudgetState {
    limit: u64,
    taken: AtomicU64,
    metrics: BudgetGauges,
}

impl Budget {
    fn new(limit: u64, metrics: BudgetGauges) -> Self {
        metrics.set_limit(limit);
        Self(Arc::new(BudgetState { limit, taken: AtomicU64::new(0), metrics }))
    }

    fn limit(&self) -> u64 {
        self.0.limit
    }

    /// Takes `bytes` if that many are left, and returns true if so.
    fn take(&self, bytes: u64) -> bool {
        let BudgetState { limit, taken, metrics } = &*self.0;
        let add = |now: u64| now.checked_add(bytes).filter(|sum| sum <= limit);
        let before = taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        if let Ok(before) = before {
            metrics.set_reserved(before + bytes);
        }
        before.is_ok()
    }

    fn release(&self, bytes: u64) {
        let before = self.0.taken.fetch_sub(bytes, Ordering::Relaxed);
        self.0.metrics.set_reserved(before - bytes);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::metrics::Metrics;

    const SOON: Duration = Duration::from_secs(1);

    pub(crate) fn admission(max_images: usize, memory_bytes: u64) -> Admission {
        Admission {
            images: Arc::new(Semaphore::new(max_images)),
            max_images,
            memory: Budget::new(memory_bytes, Metrics::new().budget.for_budget(BudgetName::Work)),
            bodies: Budget::new(10, Metrics::new().budget.for_budget(BudgetName::Bodies)),
        }
    }

    /// Begins a request with slots for `images`.
    pub(crate) fn admit(admission: &Admission, images: usize, wait: Duration) -> Result<Admitted, ServingError> {
        let admitted = admission.begin();
        admitted.take_slots(images, wait, SOON).map(|()| admitted)
    }

    #[test]
    fn slots_are_released() {
        let admission = admission(2, 100);
        let two = admit(&admission, 2, Duration::ZERO).unwrap();
        assert!(matches!(admit(&admission, 1, Duration::ZERO), Err(ServingError::Overloaded { .. })));
        drop(two);
        let large = admit(&admission, 5, Duration::ZERO).expect("a large request runs alone");
        assert!(large.take_slots(1, Duration::ZERO, SOON).is_ok(), "it has all slots");
        assert!(admit(&admission, 1, Duration::ZERO).is_err());
    }

    #[test]
    fn cached_images_need_memory_but_no_slot() {
        let admission = admission(1, 100);
        let _all = admit(&admission, 1, Duration::ZERO).unwrap();
        let hit = admit(&admission, 0, Duration::from_secs(9)).unwrap();
        assert!(hit.reserve(60).is_ok());
        assert!(matches!(hit.reserve(60), Err(ServingError::TooMuchMemory { .. })));
    }

    #[test]
    fn a_request_that_would_run_too_late_is_refused() {
        let wait = Duration::from_secs(3);
        let refused = admit(&admission(2, 100), 1, wait);
        assert!(matches!(refused, Err(ServingError::Overloaded { retry_after }) if retry_after == wait));
    }

    #[test]
    fn memory_is_bounded_and_released() {
        let admission = admission(9, 100);
        let one = admit(&admission, 1, Duration::ZERO).unwrap();
        let other = admit(&admission, 1, Duration::ZERO).unwrap();
        assert!(one.reserve(60).is_ok());
        assert!(matches!(other.reserve(60), Err(ServingError::Overloaded { .. })));
        assert!(matches!(one.reserve(60), Err(ServingError::TooMuchMemory { limit: 100, .. })));
        assert!(other.reserve(40).is_ok());
        drop(one);
        assert!(other.reserve(60).is_ok());
    }
}
