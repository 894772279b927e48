//! Forecast of the time of runs, from the runs so far. Overload is detected by it.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Weight of the newest observation in the moving average. The first run of a kind builds its session and takes longer
/// than all later ones: an average that is too high comes down fast.
const NEWEST_IF_HIGHER: f64 = 0.1;
const NEWEST_IF_LOWER: f64 = 0.5;
/// An observation counts as at most this many times the average: one pause of the machine must not make a server refuse
/// requests afterwards.
const MAX_RATIO: f64 = 4.0;
/// Bound of the kinds of work. Clients choose layers, so there must be a bound.
const MAX_KINDS: usize = 64;

/// The time that each kind of work takes, per pixel.
#[derive(Clone, Debug)]
pub struct Forecast<K> {
    seconds_per_pixel: HashMap<K, f64>,
}

impl<K> Default for Forecast<K> {
    fn default() -> Self {
        Self { seconds_per_pixel: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone> Forecast<K> {
    /// Notes that a run of this kind took `time` for `pixels` pixels.
    pub fn observe(&mut self, kind: &K, pixels: u64, time: Duration) {
        let observed = time.as_secs_f64() / pixels.max(1) as f64;
        if let Some(average) = self.seconds_per_pixel.get_mut(kind) {
            let weight = if observed > *average { NEWEST_IF_HIGHER } else { NEWEST_IF_LOWER };
            *average += weight * (observed.min(MAX_RATIO * *average) - *average);
            return;
        }
        if self.seconds_per_pixel.len() >= MAX_KINDS {
            // Kinds that are still in use are soon observed again.
            self.seconds_per_pixel.clear();
        }
        self.seconds_per_pixel.insert(kind.clone(), observed);
    }

    /// How long a run will take; no time at all if nothing is known.
    pub fn expected(&self, kind: &K, pixels: u64) -> Duration {
        let seconds = self.seconds_per_pixel.get(kind).copied().unwrap_or_default() * pixels as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_what_is_observed() {
        let mut forecast = Forecast::default();
        assert_eq!(forecast.expected(&1, 100), Duration::ZERO);
        forecast.observe(&1, 100, Duration::from_millis(10));
        assert_eq!(forecast.expected(&1, 200), Duration::from_millis(20));
        for _ in 0..100 {
            forecast.observe(&1, 100, Duration::from_millis(20));
        }
        let expected = forecast.expected(&1, 100);
        assert!(expected.abs_diff(Duration::from_millis(20)) < Duration::from_micros(50), "{expected:?}");
    }

    #[test]
    fn one_pause_does_not_count_for_much() {
        let mut forecast = Forecast::default();
        forecast.observe(&1, 100, Duration::from_millis(10));
        forecast.observe(&1, 100, Duration::from_hours(1));
        assert!(forecast.expected(&1, 100) <= Duration::from_millis(13));
    }

    #[test]
    fn kinds_are_bounded() {
        let mut forecast = Forecast::default();
        for kind in 0..10_000 {
            forecast.observe(&kind, 1, Duration::from_millis(1));
        }
        assert!(forecast.seconds_per_pixel.len() <= MAX_KINDS);
        assert_eq!(forecast.expected(&9_999, 1), Duration::from_millis(1));
    }
}
