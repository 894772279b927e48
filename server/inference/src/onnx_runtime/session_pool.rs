//! Sessions that use every thread of the machine, leased to one engine at a time.
//!
//! An engine that runs alone takes them out of the pool, owns them for its run, and puts them back. No lock is held
//! meanwhile; an engine that finds the pool empty uses sessions of its own. Changes of sessions that are leased are made
//! when they come back.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Sessions;

type Change = Box<dyn FnOnce(&mut Sessions) + Send>;

/// The sessions that engines share. Clones share one pool.
#[derive(Clone)]
pub(super) struct SharedSessionPool {
    state: Arc<Mutex<PoolState>>,
    capacity: usize,
}

struct PoolState {
    /// `None` while they are leased.
    sessions: Option<Sessions>,
    /// Changes to make when they come back, in order.
    changes: Vec<Change>,
}

impl SharedSessionPool {
    /// Room for `capacity` sessions of each model, none of them built.
    pub(super) fn new(capacity: usize) -> Self {
        let state = PoolState { sessions: Some(Sessions::new(capacity)), changes: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)), capacity }
    }

    /// Takes the sessions, unless they are leased.
    pub(super) fn lease(&self) -> Option<SessionLease> {
        let sessions = self.lock().sessions.take()?;
        Some(SessionLease { sessions: Some(sessions), pool: self.clone() })
    }

    /// Changes the sessions, now or when they come back.
    pub(super) fn change(&self, change: impl FnOnce(&mut Sessions) + Send + 'static) {
        self.lock().changes.push(Box::new(change));
        // The end of a lease makes the changes: of this one, unless there is another.
        drop(self.lease());
    }

    /// Puts the sessions back after all changes that waited for them.
    fn put_back(&self, mut sessions: Sessions) {
        loop {
            let changes = {
                let mut state = self.lock();
                if state.changes.is_empty() {
                    state.sessions = Some(sessions);
                    return;
                }
                mem::take(&mut state.changes)
            };
            for change in changes {
                change(&mut sessions);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        // The lock is held for moves alone, which do not panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sessions while an engine has them; dropping it puts them back.
pub(super) struct SessionLease {
    sessions: Option<Sessions>,
    pool: SharedSessionPool,
}

impl SessionLease {
    pub(super) fn sessions(&mut self) -> &mut Sessions {
        self.sessions.as_mut().expect("they are put back by dropping only")
    }
}

impl Drop for SessionLease {
    fn drop(&mut self) {
        // The state that a panic left in a session is unknown: it is built again.
        let sound = self.sessions.take().filter(|_| !std::thread::panicking());
        self.pool.put_back(sound.unwrap_or_else(|| Sessions::new(self.pool.capacity)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn there_is_one_lease_at_a_time() {
        let pool = SharedSessionPool::new(1);
        let first = pool.lease().expect("they are there");
        assert!(pool.lease().is_none());
        drop(first);
        assert!(pool.lease().is_some());
    }

    #[test]
    fn a_panic_ends_a_lease() {
        let pool = SharedSessionPool::new(1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lease = pool.lease();
            panic!("as intended");
        }));
        assert!(result.is_err());
        assert!(pool.lease().is_some());
    }

    #[test]
    fn changes_wait_for_the_end_of_a_lease() {
        let pool = SharedSessionPool::new(1);
        let (done, changed) = mpsc::channel();
        let lease = pool.lease();
        pool.change(move |_| done.send(()).expect("the receiver is there"));
        assert!(changed.try_recv().is_err());
        drop(lease);
        assert!(changed.try_recv().is_ok());
        assert!(pool.lease().is_some());
    }
}
