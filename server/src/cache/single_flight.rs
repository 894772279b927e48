//! One computation for many concurrent callers.
//!
//! The first caller of a key starts its computation. Callers that come before it has ended join it and get the same
//! outcome. All waiting callers drive the computation: if the one that started it is cancelled, the others drive it on,
//! and when the last one is cancelled it is dropped. It is removed as soon as it ends, so nobody joins a finished
//! computation. Outcomes are not stored here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// A computation that several callers wait for; each gets a clone of the outcome.
pub type SharedComputation<V> = Shared<BoxFuture<'static, V>>;

/// Running computations by key.
#[derive(Debug)]
pub struct SingleFlight<K, V: Clone>(Arc<Mutex<Running<K, V>>>);

#[derive(Debug)]
struct Running<K, V: Clone> {
    computations: HashMap<K, (u64, WeakShared<BoxFuture<'static, V>>)>,
    started: u64,
}

/// Relation of a caller to its [`SharedComputation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The caller started it.
    Started,
    /// The caller joined one that was running.
    Joined,
}

impl<K, V> Default for SingleFlight<K, V>
where
    V: Clone,
{
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Running { computations: HashMap::new(), started: 0 })))
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// True while a computation of `key` is running.
    pub fn is_running(&self, key: &K) -> bool {
        // Bound to a variable, so that it is dropped after the lock: it may be the last handle by now, and the end of the
        // computation takes the lock, too.
        let computation = lock(&self.0).computations.get(key).and_then(|(_, computation)| computation.upgrade());
        computation.is_some()
    }

    /// Joins the running computation of `key`, or starts `work`.
    pub fn join_or_start(
        &self,
        key: K,
        work: impl Future<Output = V> + Send + 'static,
    ) -> (SharedComputation<V>, Role) {
        let mut running = lock(&self.0);
        if let Some(computation) = running.computations.get(&key).and_then(|(_, computation)| computation.upgrade()) {
            return (computation, Role::Joined);
        }
        running.started += 1;
        let number = running.started;
        let guard = RemoveOnDrop { running: Arc::clone(&self.0), key: key.clone(), number };
        let computation = async move {
            // Moved in, so that it is dropped with the computation, wherever that ends.
            let guard = guard;
            let outcome = work.await;
            // Removes the computation before anyone sees the outcome.
            drop(guard);
            outcome
        };
        let computation = computation.boxed().shared();
        if let Some(weak) = computation.downgrade() {
            running.computations.insert(key, (number, weak));
        }
        (computation, Role::Started)
    }
}

/// Removes a computation when it has ended or is dropped.
struct RemoveOnDrop<K: Eq + Hash, V: Clone> {
    running: Arc<Mutex<Running<K, V>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V: Clone> Drop for RemoveOnDrop<K, V> {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        // Another computation of this key may have started after all callers of this one were cancelled.
        if running.computations.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            running.computations.remove(&self.key);
        }
    }
}

/// No code panics while it holds the lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    type Computations = SingleFlight<u8, u32>;

    /// Joins or starts a computation of key 1 that ends when its outcome is sent.
    fn call(computations: &Computations) -> (oneshot::Sender<u32>, SharedComputation<u32>, Role) {
        let (outcome, received) = oneshot::channel();
        let (computation, role) = computations.join_or_start(1, async { received.await.unwrap() });
        (outcome, computation, role)
    }

    #[tokio::test]
    async fn a_hundred_callers_cost_one_computation() {
        let computations = Computations::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let callers = (0..100).map(|_| {
            let runs = Arc::clone(&runs);
            let work = async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::Relaxed) as u32
            };
            tokio::spawn(computations.join_or_start(1, work).0)
        });
        let callers: Vec<_> = callers.collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), 0);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn a_computation_goes_on_when_the_caller_that_started_it_is_cancelled() {
        let computations = Computations::default();
        let (outcome, first, role) = call(&computations);
        assert_eq!(role, Role::Started);
        let first = tokio::spawn(first);
        tokio::task::yield_now().await;
        let (_, second, role) = call(&computations);
        assert_eq!(role, Role::Joined);
        let second = tokio::spawn(second);
        tokio::task::yield_now().await;
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        outcome.send(7).unwrap();
        assert_eq!(second.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_computation_is_dropped_with_its_last_caller() {
        let computations = Computations::default();
        let (outcome, first, _) = call(&computations);
        let (_, second, _) = call(&computations);
        drop(first);
        assert!(!outcome.is_closed());
        drop(second);
        assert!(outcome.is_closed());
        assert!(!computations.is_running(&1));
        assert!(lock(&computations.0).computations.is_empty(), "nothing is left behind");
    }

    #[tokio::test]
    async fn nobody_joins_a_finished_computation() {
        let computations = Computations::default();
        let (outcome, first, _) = call(&computations);
        outcome.send(7).unwrap();
        assert_eq!(first.clone().await, 7);
        let (_, _second, role) = call(&computations);
        assert_eq!(role, Role::Started, "though the outcome of the first is still held");
        drop(first);
        assert!(computations.is_running(&1), "the end of the first must not remove the second");
    }
}
