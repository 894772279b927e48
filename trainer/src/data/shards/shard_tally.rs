//! Counts of members that are no images, taken when a shard is opened for the first time.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::member::{Member, index};
use crate::data::Tally;
use crate::data::passed_over::{self, PassedOverReason};

/// Counts over all shards that were opened so far.
#[derive(Debug, Default)]
pub(super) struct ShardTally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    opened: HashSet<PathBuf>,
    total: Tally<PassedOverReason>,
}

impl ShardTally {
    /// Lists the images of a shard; the first time, counts and logs what is passed over.
    pub(super) fn index(&self, shard: &Path) -> Vec<Member> {
        let (members, tally) = index(shard);
        let mut state = self.state();
        if state.opened.insert(shard.to_owned()) {
            state.total.merge(&tally);
            drop(state);
            if !tally.is_empty() {
                passed_over::log(&shard.display(), Some(members.len() as u64), &tally);
            }
        }
        members
    }

    /// The counts so far.
    pub(super) fn total(&self) -> Tally<PassedOverReason> {
        self.state().total.clone()
    }

    /// Counts what lies beside the shards.
    pub(super) fn note(&self, tally: &Tally<PassedOverReason>) {
        self.state().total.merge(tally);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
