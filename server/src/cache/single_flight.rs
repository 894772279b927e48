//! Many callers of one computation.
//!
//! Whoever asks first leads: the computation is theirs, with their means. Whoever asks for the same before it has
//! ended joins and gets the same outcome. It is driven by all who wait: if the leader goes, the others drive it on, and
//! when the last one goes it is dropped. It is forgotten the moment it ends, so that nobody joins what is over; what is
//! worth keeping is for others to keep.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// The outcome of a computation, for one of those who wait for it.
pub type Flight<V> = Shared<BoxFuture<'static, V>>;

/// The computations that are under way, by what they compute.
#[derive(Debug)]
pub struct Flights<K, V: Clone>(Arc<Mutex<UnderWay<K, V>>>);

#[derive(Debug)]
struct UnderWay<K, V: Clone> {
    flights: HashMap<K, (u64, WeakShared<BoxFuture<'static, V>>)>,
    started: u64,
}

/// How a caller came to a [`Flight`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is the caller's own computation.
    Led,
    /// It is another's.
    Joined,
}

impl<K, V> Default for Flights<K, V>
where
    V: Clone,
{
    fn default() -> Self {
        Self(Arc::new(Mutex::new(UnderWay { flights: HashMap::new(), started: 0 })))
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Whether `key` is being computed.
    pub fn is_under_way(&self, key: &K) -> bool {
        // Taken out of the lock before it is dropped: it may be the last by then, and the computation's end locks, too.
        let flight = lock(&self.0).flights.get(key).and_then(|(_, flight)| flight.upgrade());
        flight.is_some()
    }

    /// The computation of `key` that is under way, else `work`.
    pub fn join_or_lead(&self, key: K, work: impl Future<Output = V> + Send + 'static) -> (Flight<V>, Role) {
        let mut under_way = lock(&self.0);
        if let Some(flight) = under_way.flights.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return (flight, Role::Joined);
        }
        under_way.started += 1;
        let number = under_way.started;
        let landing = Landing { under_way: Arc::clone(&self.0), key: key.clone(), number };
        let flight = async move {
            // Moved in, so that it is dropped with the computation, wherever that ends.
            let landing = landing;
            let outcome = work.await;
            // Before anyone sees the outcome.
            drop(landing);
            outcome
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            under_way.flights.insert(key, (number, weak));
        }
        (flight, Role::Led)
    }
}

/// Forgets a computation when it has ended, or was dropped.
struct Landing<K: Eq + Hash, V: Clone> {
    under_way: Arc<Mutex<UnderWay<K, V>>>,
    key: K,
    number: u64,
}

impl<K: Eq + Hash, V: Clone> Drop for Landing<K, V> {
    fn drop(&mut self) {
        let mut under_way = lock(&self.under_way);
        // Another may have begun since nobody waited for this one.
        if under_way.flights.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            under_way.flights.remove(&self.key);
        }
    }
}

/// Nothing can panic while it is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::oneshot;

    use super::*;

    fn lead(flights: &Flights<u8, u32>) -> (oneshot::Sender<u32>, Flight<u32>, Role) {
        let (answer, answered) = oneshot::channel();
        let (flight, role) = flights.join_or_lead(1, async { answered.await.unwrap() });
        (answer, flight, role)
    }

    #[tokio::test]
    async fn a_hundred_callers_cost_one_computation() {
        let flights = Flights::<u8, u32>::default();
        let runs = Arc::new(AtomicUsize::new(0));
        let callers = (0..100).map(|_| {
            let runs = Arc::clone(&runs);
            let work = async move {
                tokio::task::yield_now().await;
                runs.fetch_add(1, Ordering::Relaxed) as u32
            };
            tokio::spawn(flights.join_or_lead(1, work).0)
        });
        let callers: Vec<_> = callers.collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), 0);
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn it_goes_on_when_the_leader_goes() {
        let flights = Flights::default();
        let (answer, leader, role) = lead(&flights);
        assert_eq!(role, Role::Led);
        let leader = tokio::spawn(leader);
        tokio::task::yield_now().await;
        let (_, follower, role) = lead(&flights);
        assert_eq!(role, Role::Joined);
        let follower = tokio::spawn(follower);
        tokio::task::yield_now().await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        answer.send(7).unwrap();
        assert_eq!(follower.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn it_is_dropped_with_the_last_who_waits() {
        let flights = Flights::default();
        let (answer, leader, _) = lead(&flights);
        let (_, follower, _) = lead(&flights);
        drop(leader);
        assert!(!answer.is_closed());
        drop(follower);
        assert!(answer.is_closed());
        assert!(!flights.is_under_way(&1));
        assert!(lock(&flights.0).flights.is_empty(), "it leaves nothing behind");
    }

    #[tokio::test]
    async fn nobody_joins_what_is_over() {
        let flights = Flights::default();
        let (answer, leader, _) = lead(&flights);
        answer.send(7).unwrap();
        assert_eq!(leader.clone().await, 7);
        let (_, _again, role) = lead(&flights);
        assert_eq!(role, Role::Led, "though its outcome is still held");
        drop(leader);
        assert!(flights.is_under_way(&1), "what ended is not mistaken for what runs");
    }
}
