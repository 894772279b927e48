//! Time of a request per stage, for `Server-Timing`, the metrics, the log and traces.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::ServingError;

/// Limit of the intervals of one request. Further ones are only added to the sums.
const MAX_INTERVALS: usize = 64;

/// Stage of the work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Decode,
    Queue,
    Inference,
    Match,
    Encode,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] = [Self::Decode, Self::Queue, Self::Inference, Self::Match, Self::Encode];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Inference => "inference",
            Self::Match => "match",
            Self::Encode => "encode",
        }
    }
}

/// Begin and end of one stage of one image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) stage: Stage,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
}

/// Time per stage, summed over the images of a request, which may run concurrently.
#[derive(Debug, Default)]
pub(crate) struct Timings {
    micros: [AtomicU64; Stage::ALL.len()],
    intervals: Mutex<Vec<Interval>>,
}

impl Timings {
    /// Adds a stage that ended just now.
    pub(crate) fn add(&self, stage: Stage, time: Duration) {
        self.add_until(Instant::now(), stage, time);
    }

    /// Adds a run that ended just now, and the wait before it.
    pub(crate) fn add_run(&self, queued: Duration, inference: Duration) {
        let now = Instant::now();
        self.add_until(now.checked_sub(inference).unwrap_or(now), Stage::Queue, queued);
        self.add_until(now, Stage::Inference, inference);
    }

    fn add_until(&self, ended: Instant, stage: Stage, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.micros[stage as usize].fetch_add(micros, Ordering::Relaxed);
        let begun = ended.checked_sub(time).unwrap_or(ended);
        let mut intervals = self.intervals.lock().unwrap_or_else(PoisonError::into_inner);
        if intervals.len() < MAX_INTERVALS {
            intervals.push(Interval { stage, begun, ended });
        }
    }

    /// Runs `work` and adds its time to `stage`.
    pub(crate) fn measure<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add(stage, begun.elapsed());
        result
    }

    /// Total time of a stage so far.
    pub(crate) fn total(&self, stage: Stage) -> Duration {
        Duration::from_micros(self.micros[stage as usize].load(Ordering::Relaxed))
    }

    /// Removes and returns the intervals so far, in the order of their ends.
    pub(crate) fn take_intervals(&self) -> Vec<Interval> {
        std::mem::take(&mut self.intervals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value of `Server-Timing`, in milliseconds.
    pub(crate) fn header(&self, total: Duration) -> String {
        let stages = Stage::ALL.map(|stage| (stage.name(), self.total(stage)));
        let all = stages.into_iter().chain([("total", total)]);
        let parts: Vec<String> =
            all.map(|(name, time)| format!("{name};dur={:.2}", time.as_secs_f64() * 1e3)).collect();
        parts.join(", ")
    }
}

/// Deadline and timings of a request.
#[derive(Clone, Debug)]
pub(crate) struct WorkContext {
    /// Time by which the reply must have begun.
    pub(crate) deadline: Instant,
    /// Time per stage.
    pub(crate) timings: Arc<Timings>,
}

impl WorkContext {
    /// Waits for an answer until the deadline. Work that has not begun by then is dropped.
    pub(crate) async fn answer<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, ServingError>>,
    ) -> Result<T, ServingError> {
        match tokio::time::timeout_at(self.deadline.into(), answer).await {
            // The queue may detect it first, but does not know the limit.
            Ok(Err(ServingError::DeadlinePassed { .. })) | Err(_) => Err(ServingError::DeadlinePassed { limit }),
            Ok(result) => result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_milliseconds() {
        let timings = Timings::default();
        timings.add(Stage::Decode, Duration::from_micros(1250));
        timings.add(Stage::Decode, Duration::from_micros(250));
        let header = timings.header(Duration::from_millis(20));
        assert_eq!(
            header,
            "decode;dur=1.50, queue;dur=0.00, inference;dur=0.00, match;dur=0.00, encode;dur=0.00, total;dur=20.00"
        );
    }

    #[test]
    fn a_wait_ends_when_its_run_begins_and_intervals_are_bounded() {
        let timings = Timings::default();
        timings.add_run(Duration::from_millis(3), Duration::from_millis(5));
        let [queue, inference] = timings.take_intervals()[..] else { panic!("two intervals") };
        assert_eq!((queue.stage, inference.stage), (Stage::Queue, Stage::Inference));
        assert_eq!(queue.ended, inference.begun);
        assert_eq!(inference.begun.duration_since(queue.begun), Duration::from_millis(3));
        for _ in 0..1000 {
            timings.add(Stage::Decode, Duration::from_millis(1));
        }
        assert_eq!(timings.take_intervals().len(), MAX_INTERVALS);
        assert_eq!(timings.total(Stage::Decode), Duration::from_secs(1));
    }
}
