//! The batching policy: which waiting requests run together and when, and which are dropped. Pure functions of the
//! requests that wait.

use std::time::Duration;

use crate::metrics::DropReason;

/// One request as the policy sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting<K> {
    /// Only requests of equal keys can share a batch.
    pub key: K,
    /// Pixels of its image.
    pub pixels: u64,
    /// How long it has waited.
    pub waited: Duration,
    /// How much longer its answer would be of use.
    pub time_left: Duration,
    /// How long a run of it alone is expected to take.
    pub expected: Duration,
    /// True if its caller still waits.
    pub is_wanted: bool,
}

impl<K> Waiting<K> {
    /// The reason to drop the request without a run, if there is one.
    ///
    /// The expected time may be wrong, so a request is dropped only if even a run in half that time would end too late.
    pub fn drop_reason(&self) -> Option<DropReason> {
        if !self.is_wanted {
            return Some(DropReason::CallerGone);
        }
        (self.time_left.is_zero() || self.time_left < self.expected / 2).then_some(DropReason::Deadline)
    }
}

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchPolicy {
    /// Requests per batch.
    pub max_batch: usize,
    /// Pixels per batch; a single larger image still runs, alone.
    pub max_batch_pixels: u64,
    /// How long a request waits for others of its kind.
    pub max_wait: Duration,
}

/// The decision for now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing waits.
    Idle,
    /// Nothing is due for this long, unless another request arrives.
    Wait(Duration),
    /// Run these, given by their places in the queue, ascending.
    Run(Vec<usize>),
}

impl BatchPolicy {
    /// Decides about the requests that wait, oldest first.
    ///
    /// A batch that can grow no further runs at once; but a request that has waited long enough
    /// goes before any later one, so that a stream of full batches of another kind cannot starve
    /// it.
    pub fn decide<K: PartialEq>(&self, waiting: &[Waiting<K>]) -> Decision {
        let Some(oldest) = waiting.first() else { return Decision::Idle };
        let first_batch = self.batch_from(waiting, 0);
        if oldest.waited >= self.max_wait || first_batch.is_full {
            return Decision::Run(first_batch.members);
        }
        for start in 1..waiting.len() {
            let begins_a_kind = waiting[..start].iter().all(|earlier| earlier.key != waiting[start].key);
            if begins_a_kind {
                let batch = self.batch_from(waiting, start);
                if batch.is_full {
                    return Decision::Run(batch.members);
                }
            }
        }
        Decision::Wait(self.max_wait.saturating_sub(oldest.waited))
    }

    /// The longest batch that begins with the request at `start`.
    fn batch_from<K: PartialEq>(&self, waiting: &[Waiting<K>], start: usize) -> Batch {
        let first = &waiting[start];
        let mut batch = Batch { members: vec![start], is_full: self.max_batch <= 1 };
        let mut pixels = first.pixels;
        for (place, request) in waiting.iter().enumerate().skip(start + 1) {
            if batch.is_full {
                break;
            }
            if request.key != first.key {
                continue;
            }
            pixels = pixels.saturating_add(request.pixels);
            if pixels > self.max_batch_pixels {
                batch.is_full = true;
                break;
            }
            batch.members.push(place);
            batch.is_full = batch.members.len() >= self.max_batch;
        }
        // One more like the first would not fit: waiting for it would be in vain.
        batch.is_full |= pixels.saturating_add(first.pixels) > self.max_batch_pixels;
        batch
    }
}

struct Batch {
    members: Vec<usize>,
    is_full: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: BatchPolicy =
        BatchPolicy { max_batch: 3, max_batch_pixels: 1000, max_wait: Duration::from_millis(10) };

    fn waiting(key: u8, pixels: u64, waited_ms: u64) -> Waiting<u8> {
        Waiting {
            key,
            pixels,
            waited: Duration::from_millis(waited_ms),
            time_left: Duration::from_secs(1),
            expected: Duration::ZERO,
            is_wanted: true,
        }
    }

    #[test]
    fn a_request_that_cannot_be_in_time_is_dropped() {
        let with = |time_left_ms, expected_ms| Waiting {
            time_left: Duration::from_millis(time_left_ms),
            expected: Duration::from_millis(expected_ms),
            ..waiting(1, 100, 0)
        };
        assert_eq!(with(100, 150).drop_reason(), None);
        assert_eq!(with(100, 250).drop_reason(), Some(DropReason::Deadline));
        assert_eq!(with(0, 0).drop_reason(), Some(DropReason::Deadline));
        assert_eq!(Waiting { is_wanted: false, ..with(100, 0) }.drop_reason(), Some(DropReason::CallerGone));
    }

    #[test]
    fn waits_for_company_until_due() {
        assert_eq!(POLICY.decide::<u8>(&[]), Decision::Idle);
        let lone = |waited| POLICY.decide(&[waiting(1, 100, waited)]);
        assert_eq!(lone(4), Decision::Wait(Duration::from_millis(6)));
        assert_eq!(lone(10), Decision::Run(vec![0]));
    }

    #[test]
    fn a_full_batch_does_not_wait() {
        let three = [waiting(1, 100, 0), waiting(2, 100, 0), waiting(1, 100, 0), waiting(1, 100, 0)];
        assert_eq!(POLICY.decide(&three), Decision::Run(vec![0, 2, 3]));
        let later = [waiting(2, 100, 5), waiting(1, 100, 0), waiting(1, 100, 0), waiting(1, 100, 0)];
        assert_eq!(POLICY.decide(&later), Decision::Run(vec![1, 2, 3]));
    }

    #[test]
    fn one_that_is_due_goes_before_a_full_batch() {
        let due = [waiting(2, 100, 10), waiting(1, 100, 9), waiting(1, 100, 9), waiting(1, 100, 9)];
        assert_eq!(POLICY.decide(&due), Decision::Run(vec![0]));
    }

    #[test]
    fn pixels_bound_a_batch_but_not_a_single_image() {
        assert_eq!(POLICY.decide(&[waiting(1, 600, 0), waiting(1, 600, 0)]), Decision::Run(vec![0]));
        assert_eq!(POLICY.decide(&[waiting(1, 5000, 0)]), Decision::Run(vec![0]));
    }

    proptest! {
        /// Draining any queue answers every request exactly once, in valid batches, and never
        /// makes the oldest wait longer than it must.
        #[test]
        fn every_request_runs_exactly_once(
            requests in prop::collection::vec((0u8..4, 1u64..1500), 0..40),
            max_batch in 1usize..6,
            step_ms in 0u64..12,
        ) {
            let policy = BatchPolicy { max_batch, ..POLICY };
            let mut left: Vec<(usize, Waiting<u8>)> =
                requests.iter().map(|&(key, pixels)| waiting(key, pixels, 0)).enumerate().collect();
            let mut answered = vec![0; requests.len()];
            loop {
                let view: Vec<_> = left.iter().map(|(_, w)| w.clone()).collect();
                let elapsed = match policy.decide(&view) {
                    Decision::Idle => break,
                    Decision::Wait(time) => {
                        prop_assert!(time > Duration::ZERO && time <= policy.max_wait);
                        time
                    }
                    Decision::Run(members) => {
                        prop_assert!(!members.is_empty() && members.len() <= max_batch);
                        prop_assert!(members.is_sorted());
                        let oldest_is_due = view[0].waited >= policy.max_wait;
                        prop_assert!(!oldest_is_due || members[0] == 0);
                        let pixels: u64 = members.iter().map(|&m| view[m].pixels).sum();
                        prop_assert!(members.len() == 1 || pixels <= policy.max_batch_pixels);
                        for &member in members.iter().rev() {
                            let (id, request) = left.remove(member);
                            prop_assert_eq!(request.key, view[members[0]].key);
                            answered[id] += 1;
                        }
                        Duration::from_millis(step_ms)
                    }
                };
                for (_, request) in &mut left {
                    request.waited += elapsed;
                }
            }
            prop_assert!(answered.iter().all(|&times| times == 1));
        }
    }
}
