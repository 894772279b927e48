//! The bounded queue between the requests and the engines.
//!
//! Requests join at once or are refused; they never wait for room. Engines take batches out; while they run some, the
//! next form here.
//!
//! An engine that finds nothing to do registers itself in [`State::idle`] and sleeps. A request wakes one idle engine, and
//! takes it off that list. An engine that leaves with work while more is waiting wakes the next. So each change wakes one
//! engine at most, and a request that waits has at least one engine that is awake, or has set a timer for it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout_at};

use super::engine_command::EngineCommand;
use super::forecast::Forecast;
use super::policy::{BatchPolicy, Decision, Waiting};
use super::{BatchError, BatchReply, BatchRequest};
use crate::backend::{Backend, BackendModel, LayerSet, Load, ModelId};
use crate::metrics::InferenceMetrics;

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

/// A request and the channel to its caller.
pub(super) struct Pending<M> {
    pub(super) request: BatchRequest<M>,
    pub(super) enqueued: Instant,
    pub(super) reply: oneshot::Sender<Result<BatchReply, BatchError>>,
}

/// The next work of an engine.
pub(super) enum Work<B: Backend> {
    /// Requests of one model, one layer set and one size.
    Run(Vec<Pending<B::Model>>, Load),
    /// A change of its sessions.
    Command(EngineCommand<B>),
}

pub(super) struct Queue<B: Backend> {
    state: Mutex<State<B>>,
    /// Wakes each engine. Only that engine waits for it, so a permit is never lost to another.
    wakers: Vec<Notify>,
    policy: BatchPolicy,
    limits: QueueLimits,
    metrics: InferenceMetrics,
}

struct State<B: Backend> {
    pending: Vec<Pending<B::Model>>,
    engines: Vec<EngineState<B>>,
    /// Engines that sleep and have not been woken. The last one began to sleep last; it has the timer if there is one.
    idle: Vec<usize>,
    forecast: Forecast<(ModelId, LayerSet)>,
    is_open: bool,
}

/// The queue's view of an engine.
struct EngineState<B: Backend> {
    /// The expected end of its run; `None` if it runs nothing.
    busy_until: Option<Instant>,
    commands: VecDeque<EngineCommand<B>>,
}

/// The result of an engine's look at the queue.
enum Found<B: Backend> {
    Work(Work<B>),
    /// Nothing to do until this time, or until it is woken.
    Nothing(Option<Instant>),
    /// Nothing to do any more.
    End,
}

impl<B: Backend> Queue<B> {
    pub(super) fn new(engines: usize, policy: BatchPolicy, limits: QueueLimits, metrics: InferenceMetrics) -> Self {
        let wakers = (0..engines).map(|_| Notify::new()).collect();
        let engines = (0..engines).map(|_| EngineState { busy_until: None, commands: VecDeque::new() }).collect();
        let state =
            State { pending: Vec::new(), engines, idle: Vec::new(), forecast: Forecast::default(), is_open: true };
        Self { state: Mutex::new(state), wakers, policy, limits, metrics }
    }

    /// Puts a request at the end of the queue.
    pub(super) fn push(
        &self,
        request: BatchRequest<B::Model>,
    ) -> Result<oneshot::Receiver<Result<BatchReply, BatchError>>, BatchError> {
        let now = Instant::now();
        let mut state = self.lock();
        if !state.is_open {
            return Err(BatchError::Closed);
        }
        self.drop_expired(&mut state, now);
        let wait = state.predicted_wait(now);
        let pixels: u64 = state.pending.iter().map(|waiting| waiting.request.pixels()).sum();
        let is_full = state.pending.len() >= self.limits.max_requests
            || (!state.pending.is_empty() && pixels.saturating_add(request.pixels()) > self.limits.max_pixels);
        // A queue that is empty takes anything: only a run can correct a wrong expectation.
        let is_late = !wait.is_zero() && now + wait + state.expected(&request) > request.deadline;
        if is_full || is_late {
            return Err(BatchError::Overloaded { retry_after: wait });
        }
        let (reply, receiver) = oneshot::channel();
        state.pending.push(Pending { request, enqueued: now, reply });
        self.update_depth(&state);
        let woken = state.idle.pop();
        drop(state);
        self.wake(woken);
        Ok(receiver)
    }

    /// How long a request that came now would wait for its turn.
    pub(super) fn predicted_wait(&self) -> Duration {
        self.lock().predicted_wait(Instant::now())
    }

    /// Gives an engine a command, which goes before any batch. Does nothing once the queue is closed.
    pub(super) fn send(&self, engine: usize, command: EngineCommand<B>) {
        let mut state = self.lock();
        if state.is_open {
            state.engines[engine].commands.push_back(command);
            state.idle.retain(|&idle| idle != engine);
            drop(state);
            self.wakers[engine].notify_one();
        }
    }

    /// Waits for the next work of an engine. `None` once the queue is closed and empty.
    pub(super) async fn next(&self, engine: usize) -> Option<Work<B>> {
        loop {
            let until = match self.look(engine) {
                Found::Work(work) => return Some(work),
                Found::End => return None,
                Found::Nothing(until) => until,
            };
            // A wake-up between `look` and here is kept by the waker.
            let woken = self.wakers[engine].notified();
            match until {
                Some(until) => drop(timeout_at(until, woken).await),
                None => woken.await,
            }
        }
    }

    /// Takes the next work of an engine, or registers the engine as idle.
    fn look(&self, engine: usize) -> Found<B> {
        let now = Instant::now();
        let mut state = self.lock();
        state.engines[engine].busy_until = None;
        // It is still there if its timer woke it.
        state.idle.retain(|&idle| idle != engine);
        self.drop_expired(&mut state, now);
        self.update_depth(&state);
        let found = match state.engines[engine].commands.pop_front() {
            Some(command) => Found::Work(Work::Command(command)),
            None => match self.decide(&state, now) {
                Decision::Run(places) => Found::Work(self.take(&mut state, engine, &places, now)),
                Decision::Wait(time) => Found::Nothing(Some(now + time)),
                Decision::Idle if state.is_open => Found::Nothing(None),
                Decision::Idle => Found::End,
            },
        };
        let woken = match &found {
            Found::Work(_) if !state.pending.is_empty() => state.idle.pop(),
            Found::Work(_) | Found::End => None,
            Found::Nothing(_) => {
                state.idle.push(engine);
                None
            }
        };
        drop(state);
        self.wake(woken);
        found
    }

    /// Learns from the time that a run took.
    pub(super) fn observe(&self, batch: &[Pending<B::Model>], load: Load, time: Duration) {
        let Some(first) = batch.first() else { return };
        let mut state = self.lock();
        // A run that had the machine to itself took as much of it as one on every engine.
        let engines = if load == Load::Idle { state.engines.len() } else { 1 };
        let pixels = batch.iter().map(|pending| pending.request.pixels()).sum();
        let kind = (first.request.model.id(), first.request.layers.clone());
        state.forecast.observe(&kind, pixels, time * engines as u32);
    }

    /// Refuses all later requests; those that wait still run.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_open = false;
        state.idle.clear();
        drop(state);
        self.wake_all();
    }

    /// Closes the queue and answers all that wait with `Closed`, when nothing can run any more.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.is_open = false;
        state.idle.clear();
        for waiting in state.pending.drain(..) {
            // A caller who has gone needs no answer.
            let _ = waiting.reply.send(Err(BatchError::Closed));
        }
        state.engines.iter_mut().for_each(|engine| engine.commands.clear());
        self.update_depth(&state);
        drop(state);
        self.wake_all();
    }

    fn decide(&self, state: &State<B>, now: Instant) -> Decision {
        let view: Vec<_> = state.pending.iter().map(|pending| state.view(pending, now)).collect();
        match self.policy.decide(&view) {
            // No other request will come: those that wait for company run as they are.
            Decision::Wait(_) if !state.is_open => {
                BatchPolicy { max_wait: Duration::ZERO, ..self.policy }.decide(&view)
            }
            decision => decision,
        }
    }

    /// Removes the requests at `places`, which ascend, for `engine` to run.
    fn take(&self, state: &mut State<B>, engine: usize, places: &[usize], now: Instant) -> Work<B> {
        let mut batch: Vec<_> = places.iter().rev().map(|&place| state.pending.remove(place)).collect();
        batch.reverse();
        let expected: Duration = batch.iter().map(|pending| state.expected(&pending.request)).sum();
        let is_alone = state.pending.is_empty() && state.engines.iter().all(|engine| engine.busy_until.is_none());
        state.engines[engine].busy_until = Some(now + expected);
        self.update_depth(state);
        Work::Run(batch, if is_alone { Load::Idle } else { Load::Busy })
    }

    /// Drops requests whose callers have gone, and answers those that cannot be in time.
    fn drop_expired(&self, state: &mut State<B>, now: Instant) {
        let mut place = 0;
        while place < state.pending.len() {
            let Some(reason) = state.view(&state.pending[place], now).drop_reason() else {
                place += 1;
                continue;
            };
            self.metrics.record_dropped(reason);
            // Fails only if the caller has gone, which is one of the reasons to be here.
            let _ = state.pending.remove(place).reply.send(Err(BatchError::DeadlinePassed));
        }
    }

    fn update_depth(&self, state: &State<B>) {
        self.metrics.set_queue(state.pending.len(), state.pending.first().map(|waiting| waiting.enqueued));
    }

    fn wake(&self, engine: Option<usize>) {
        if let Some(engine) = engine {
            self.wakers[engine].notify_one();
        }
    }

    fn wake_all(&self) {
        self.wakers.iter().for_each(Notify::notify_one);
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // Nothing between lock and unlock leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> State<B> {
    fn view<'a>(&self, pending: &'a Pending<B::Model>, now: Instant) -> Waiting<impl PartialEq + use<'a, B>> {
        Waiting {
            key: pending.request.kind(),
            pixels: pending.request.pixels(),
            waited: now.saturating_duration_since(pending.enqueued),
            time_left: pending.request.deadline.saturating_duration_since(now),
            expected: self.expected(&pending.request),
            is_wanted: !pending.reply.is_closed(),
        }
    }

    fn expected(&self, request: &BatchRequest<B::Model>) -> Duration {
        self.forecast.expected(&(request.model.id(), request.layers.clone()), request.pixels())
    }

    /// The time that all waiting and running work takes, shared among the engines.
    fn predicted_wait(&self, now: Instant) -> Duration {
        let running = self.engines.iter().filter_map(|engine| engine.busy_until);
        let remaining = running.map(|until| until.saturating_duration_since(now));
        let waiting = self.pending.iter().map(|pending| self.expected(&pending.request));
        let all: Duration = remaining.chain(waiting).fold(Duration::ZERO, Duration::saturating_add);
        all / self.engines.len() as u32
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
