//! The bounded queue between the requests and the engine threads.
//!
//! Requests join at once or are refused; they never wait to wait. The engine threads take batches
//! out. While they run some, the next form here.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::forecast::Forecast;
use super::policy::{BatchPolicy, Decision, Waiting};
use super::worker::Errand;
use super::{BatchError, BatchReply, BatchRequest};
use crate::engine::{LayerSet, Load, ModelId};
use crate::metrics::BatchMetrics;

/// Bounds of the queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Requests that may wait.
    pub max_requests: usize,
    /// Pixels of all waiting images together; a single larger image may still wait alone.
    pub max_pixels: u64,
    /// Pixels of the largest image that is ever asked for.
    pub max_image_pixels: u64,
}

/// A request and the way back to its caller.
pub(super) struct Pending {
    pub(super) request: BatchRequest,
    pub(super) enqueued: Instant,
    pub(super) reply: oneshot::Sender<Result<BatchReply, BatchError>>,
}

/// What an engine thread is to do next.
pub(super) enum Work {
    /// Requests of one model, one layer set and one size.
    Run(Vec<Pending>, Load),
    /// Something about its sessions.
    Errand(Errand),
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
    /// One for each engine thread.
    desks: Vec<Desk>,
    forecast: Forecast<(ModelId, LayerSet)>,
    is_open: bool,
}

/// What the queue knows of an engine thread.
#[derive(Default)]
struct Desk {
    /// When its run will probably be over.
    busy_until: Option<Instant>,
    errands: VecDeque<Errand>,
}

impl Queue {
    pub(super) fn new(engines: usize, policy: BatchPolicy, limits: QueueLimits, metrics: BatchMetrics) -> Self {
        let desks = (0..engines).map(|_| Desk::default()).collect();
        let state = State { pending: Vec::new(), desks, forecast: Forecast::default(), is_open: true };
        Self { state: Mutex::new(state), changed: Condvar::new(), policy, limits, metrics }
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
        let wait = state.predicted_wait();
        let pixels: u64 = state.pending.iter().map(|waiting| waiting.request.pixels()).sum();
        let is_full = state.pending.len() >= self.limits.max_requests
            || (!state.pending.is_empty() && pixels.saturating_add(request.pixels()) > self.limits.max_pixels);
        // A queue that is empty takes anything: only a run can correct a wrong expectation.
        let is_late = !wait.is_zero() && Instant::now() + wait + state.expected(&request) > request.deadline;
        if is_full || is_late {
            return Err(BatchError::Overloaded { retry_after: wait });
        }
        let (reply, receiver) = oneshot::channel();
        state.pending.push(Pending { request, enqueued: Instant::now(), reply });
        self.note_depth(&state);
        self.changed.notify_one();
        Ok(receiver)
    }

    /// How long a request that came now would wait for its turn.
    pub(super) fn predicted_wait(&self) -> Duration {
        self.lock().predicted_wait()
    }

    /// Gives an engine thread something to do before anything else. Once the queue is closed nobody
    /// does it.
    pub(super) fn send(&self, engine: usize, errand: Errand) {
        let mut state = self.lock();
        if state.is_open {
            state.desks[engine].errands.push_back(errand);
            self.changed.notify_all();
        }
    }

    /// Waits for the next thing for engine thread `engine` to do. `None` once the queue is closed
    /// and empty.
    pub(super) fn next(&self, engine: usize) -> Option<Work> {
        let mut state = self.lock();
        state.desks[engine].busy_until = None;
        loop {
            if let Some(errand) = state.desks[engine].errands.pop_front() {
                return Some(Work::Errand(errand));
            }
            self.drop_hopeless(&mut state);
            self.note_depth(&state);
            state = match self.decide(&state) {
                Decision::Run(places) => return Some(self.take(&mut state, engine, &places)),
                Decision::Idle if !state.is_open => return None,
                Decision::Idle => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Decision::Wait(time) => {
                    self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Learns how long a run took.
    pub(super) fn observe(&self, batch: &[Pending], load: Load, time: Duration) {
        let Some(first) = batch.first() else { return };
        let mut state = self.lock();
        // A run that had the machine to itself took as much of it as one on every engine.
        let engines = if load == Load::Idle { state.desks.len() } else { 1 };
        let pixels = batch.iter().map(|pending| pending.request.pixels()).sum();
        let kind = (first.request.model.id(), first.request.layers.clone());
        state.forecast.observe(&kind, pixels, time * engines as u32);
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
        state.desks.iter_mut().for_each(|desk| desk.errands.clear());
        self.note_depth(&state);
        self.changed.notify_all();
    }

    fn decide(&self, state: &State) -> Decision {
        let now = Instant::now();
        let view: Vec<_> = state.pending.iter().map(|pending| state.view(pending, now)).collect();
        match self.policy.decide(&view) {
            // Nobody else will come: those that wait for company run as they are.
            Decision::Wait(_) if !state.is_open => {
                BatchPolicy { max_wait: Duration::ZERO, ..self.policy }.decide(&view)
            }
            decision => decision,
        }
    }

    /// Removes the requests at `places`, which ascend, for `engine` to run.
    fn take(&self, state: &mut State, engine: usize, places: &[usize]) -> Work {
        let mut batch: Vec<Pending> = places.iter().rev().map(|&place| state.pending.remove(place)).collect();
        batch.reverse();
        let expected: Duration = batch.iter().map(|pending| state.expected(&pending.request)).sum();
        let is_alone = state.pending.is_empty() && state.desks.iter().all(|desk| desk.busy_until.is_none());
        state.desks[engine].busy_until = Some(Instant::now() + expected);
        self.note_depth(state);
        if !state.pending.is_empty() {
            // A push wakes one thread, and that may have come for what this one has just taken.
            self.changed.notify_one();
        }
        Work::Run(batch, if is_alone { Load::Idle } else { Load::Busy })
    }

    /// Drops requests that nobody waits for any more, and answers those that cannot be in time.
    fn drop_hopeless(&self, state: &mut State) {
        let now = Instant::now();
        let mut place = 0;
        while place < state.pending.len() {
            let Some(reason) = state.view(&state.pending[place], now).hopeless() else {
                place += 1;
                continue;
            };
            self.metrics.dropped(reason);
            // Fails only if the caller has gone, which is one of the reasons to be here.
            let _ = state.pending.remove(place).reply.send(Err(BatchError::DeadlinePassed));
        }
    }

    fn note_depth(&self, state: &State) {
        self.metrics.queue(state.pending.len(), state.pending.first().map(|waiting| waiting.enqueued));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn view<'a>(&self, pending: &'a Pending, now: Instant) -> Waiting<impl PartialEq + use<'a>> {
        Waiting {
            key: pending.request.kind(),
            pixels: pending.request.pixels(),
            waited: now.saturating_duration_since(pending.enqueued),
            time_left: pending.request.deadline.saturating_duration_since(now),
            expected: self.expected(&pending.request),
            is_wanted: !pending.reply.is_closed(),
        }
    }

    fn expected(&self, request: &BatchRequest) -> Duration {
        self.forecast.expected(&(request.model.id(), request.layers.clone()), request.pixels())
    }

    /// The time that all waiting and running work takes, shared among the engines.
    fn predicted_wait(&self) -> Duration {
        let now = Instant::now();
        let running = self.desks.iter().filter_map(|desk| desk.busy_until);
        let remaining = running.map(|until| until.saturating_duration_since(now));
        let waiting = self.pending.iter().map(|pending| self.expected(&pending.request));
        let all: Duration = remaining.chain(waiting).fold(Duration::ZERO, Duration::saturating_add);
        all / self.desks.len() as u32
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
