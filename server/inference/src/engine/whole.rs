//! Sessions that use every thread of the machine, lent to one engine at a time.
//!
//! An engine that runs alone takes them out of their place, owns them for its run, and puts them
//! back. No lock is held meanwhile; an engine that finds the place empty uses sessions of its own.
//! What is to be changed about them while they are away is done when they come back.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Sessions;

type Change = Box<dyn FnOnce(&mut Sessions) + Send>;

/// The place where they are when nobody has them.
#[derive(Clone)]
pub(super) struct WholeMachine {
    place: Arc<Mutex<Place>>,
    capacity: usize,
}

struct Place {
    sessions: Option<Sessions>,
    /// For when they come back, in order.
    changes: Vec<Change>,
}

impl WholeMachine {
    /// Room for `capacity` sessions of each model, none of them built.
    pub(super) fn new(capacity: usize) -> Self {
        let place = Place { sessions: Some(Sessions::new(capacity)), changes: Vec::new() };
        Self { place: Arc::new(Mutex::new(place)), capacity }
    }

    /// Takes the sessions, unless somebody else has them.
    pub(super) fn take(&self) -> Option<Lent> {
        let sessions = self.place().sessions.take()?;
        Some(Lent { sessions: Some(sessions), owner: self.clone() })
    }

    /// Changes the sessions, now or when they come back.
    pub(super) fn change(&self, change: impl FnOnce(&mut Sessions) + Send + 'static) {
        self.place().changes.push(Box::new(change));
        // Whoever puts them back makes the change: this thread, if nobody else has them.
        drop(self.take());
    }

    /// Puts the sessions back after everything that waited for them was done.
    fn put_back(&self, mut sessions: Sessions) {
        loop {
            let changes = {
                let mut place = self.place();
                if place.changes.is_empty() {
                    place.sessions = Some(sessions);
                    return;
                }
                mem::take(&mut place.changes)
            };
            for change in changes {
                change(&mut sessions);
            }
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // The lock is held for moves alone, which do not panic.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.owner.put_back(sound.unwrap_or_else(|| Sessions::new(self.owner.capacity)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

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

    #[test]
    fn changes_wait_until_they_are_back() {
        let whole = WholeMachine::new(1);
        let (done, changed) = mpsc::channel();
        let lent = whole.take();
        whole.change(move |_| done.send(()).expect("somebody listens"));
        assert!(changed.try_recv().is_err());
        drop(lent);
        assert!(changed.try_recv().is_ok());
        assert!(whole.take().is_some());
    }
}
