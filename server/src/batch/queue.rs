//! The bounded queue between the requests and an engine thread.
//!
//! Requests join at once or are refused; they never wait to wait. The engine thread takes
//! batches out. While it runs one, the next forms here.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use super::policy::{BatchPolicy, Decision, Waiting};
use super::{BatchError, BatchReply, BatchRequest};
use crate::metrics::{BatchMetrics, Dropped};

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub max_requests: usize,
    /// Pixels of all waiting images together; a single larger image may still wait alone.
    pub max_pixels: u64,
}

/// A request and the way back to its caller.
pub(super) struct Pending {
    pub(super) request: BatchRequest,
    pub(super) enqueued: Instant,
    pub(super) reply: oneshot::Sender<Result<BatchReply, BatchError>>,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    policy: BatchPolicy,
    limits: QueueLimits,
    metrics: BatchMetrics,
}

struct State {
    pending: Vec<Pending>,
    is_open: bool,
}

impl Queue {
    pub(super) fn new(policy: BatchPolicy, limits: QueueLimits, metrics: BatchMetrics) -> Self {
        let state = Mutex::new(State { pending: Vec::new(), is_open: true });
        Self { state, changed: Condvar::new(), policy, limits, metrics }
    }

    /// Puts a request at the end of the queue.
    pub(super) fn push(
        &self,
        request: BatchRequest,
    ) -> Result<oneshot::Receiver<Result<BatchReply, BatchError>>, BatchError> {
        let mut state = self.lock();
        if !state.is_open {
            return Err(BatchError::Closed);
        }
        self.drop_hopeless(&mut state);
        let pixels: u64 = state.pending.iter().map(|waiting| waiting.request.pixels()).sum();
        let is_full = state.pending.len() >= self.limits.max_requests
            || (!state.pending.is_empty() && pixels.saturating_add(request.pixels()) > self.limits.max_pixels);
        if is_full {
            return Err(BatchError::QueueFull);
        }
        let (reply, receiver) = oneshot::channel();
        state.pending.push(Pending { request, enqueued: Instant::now(), reply });
        self.note_depth(&state);
        self.changed.notify_all();
        Ok(receiver)
    }

    /// Waits for the next batch: requests of one model, one layer set and one size. `None` once
    /// the queue is closed and empty.
    pub(super) fn next_batch(&self) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        loop {
            self.drop_hopeless(&mut state);
            self.note_depth(&state);
            state = match self.decide(&state) {
                Decision::Run(places) => return Some(self.take(&mut state, &places)),
                Decision::Idle if !state.is_open => return None,
                Decision::Idle => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Decision::Wait(time) => {
                    self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Refuses all later requests; those that wait still run.
    pub(super) fn close(&self) {
        self.lock().is_open = false;
        self.changed.notify_all();
    }

    /// Closes the queue and answers all that wait with `Closed`, when nothing can run any more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_open = false;
        for waiting in state.pending.drain(..) {
            // A caller who has gone needs no answer.
            let _ = waiting.reply.send(Err(BatchError::Closed));
        }
        self.note_depth(&state);
    }

    fn decide(&self, state: &State) -> Decision {
        let now = Instant::now();
        let view: Vec<_> = state
            .pending
            .iter()
            .map(|pending| Waiting {
                key: pending.request.kind(),
                pixels: pending.request.pixels(),
                waited: now.saturating_duration_since(pending.enqueued),
            })
            .collect();
        match self.policy.decide(&view) {
            // Nobody else will come: those that wait for company run as they are.
            Decision::Wait(_) if !state.is_open => {
                BatchPolicy { max_wait: std::time::Duration::ZERO, ..self.policy }.decide(&view)
            }
            decision => decision,
        }
    }

    /// Removes the requests at `places`, which ascend.
    fn take(&self, state: &mut State, places: &[usize]) -> Vec<Pending> {
        let mut batch: Vec<Pending> = places.iter().rev().map(|&place| state.pending.remove(place)).collect();
        batch.reverse();
        self.note_depth(state);
        batch
    }

    /// Drops requests that nobody waits for any more, and answers those past their deadline:
    /// work that is not begun costs nothing.
    fn drop_hopeless(&self, state: &mut State) {
        let now = Instant::now();
        let (hopeless, hopeful): (Vec<_>, Vec<_>) = std::mem::take(&mut state.pending)
            .into_iter()
            .partition(|pending| pending.reply.is_closed() || pending.request.deadline <= now);
        state.pending = hopeful;
        for pending in hopeless {
            let reason = if pending.reply.is_closed() { Dropped::CallerGone } else { Dropped::Deadline };
            self.metrics.dropped(reason);
            // Fails only if the caller has gone, which is one of the two reasons to be here.
            let _ = pending.reply.send(Err(BatchError::DeadlinePassed));
        }
    }

    fn note_depth(&self, state: &State) {
        self.metrics.queue_depth(state.pending.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
