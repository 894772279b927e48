//! Sessions that use every thread of the machine, lent to one engine at a time.
//!
//! An engine that runs alone takes them out of their place, owns them for its run, and puts them
//! back. No lock is held meanwhile; an engine that finds the place empty uses sessions of its own.

use std::sync::{Arc, Mutex, PoisonError};

use super::Sessions;
use super::cache::SessionCache;

/// The place where they are when nobody has them.
#[derive(Clone)]
pub(super) struct WholeMachine {
    place: Arc<Mutex<Option<Sessions>>>,
    capacity: usize,
}

impl WholeMachine {
    /// Room for `capacity` sessions, none of them built.
    pub(super) fn new(capacity: usize) -> Self {
        Self { place: Arc::new(Mutex::new(Some(SessionCache::new(capacity)))), capacity }
    }

    /// Takes the sessions, unless somebody else has them.
    pub(super) fn take(&self) -> Option<Lent> {
        // The lock is held for the move alone, which does not panic.
        let sessions = self.place.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some(Lent { sessions: Some(sessions), owner: self.clone() })
    }
}

/// The sessions while an engine has them; dropping it puts them back.
pub(super) struct Lent {
    sessions: Option<Sessions>,
    owner: WholeMachine,
}

impl Lent {
    pub(super) fn sessions(&mut self) -> &mut Sessions {
        self.sessions.as_mut().expect("they are given back by dropping only")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // What a panic left behind in a session is unknown: it is built afresh.
        let sound = self.sessions.take().filter(|_| !std::thread::panicking());
        let sessions = sound.unwrap_or_else(|| SessionCache::new(self.owner.capacity));
        *self.owner.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(sessions);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_them() {
        let whole = WholeMachine::new(1);
        let first = whole.take().expect("they are there");
        assert!(whole.take().is_none());
        drop(first);
        assert!(whole.take().is_some());
    }

    #[test]
    fn a_panic_gives_them_back() {
        let whole = WholeMachine::new(1);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _lent = whole.take();
            panic!("as intended");
        }));
        assert!(result.is_err());
        assert!(whole.take().is_some());
    }
}
