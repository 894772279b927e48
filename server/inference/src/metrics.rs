//! The queue before the engines, and the runs.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Why a request left the queue without being run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Dropped {
    /// Its caller had gone.
    CallerGone,
    /// Its deadline had passed.
    Deadline,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: Dropped,
}

/// The queue and the batches.
#[derive(Clone, Debug)]
pub struct BatchMetrics {
    depth: Gauge,
    /// When the one that waits longest began to.
    oldest: Arc<Mutex<Option<Instant>>>,
    oldest_age: Gauge<f64, AtomicU64>,
    sizes: Histogram,
    durations: Histogram,
    dropped: Family<DroppedLabels, Counter>,
}

impl BatchMetrics {
    /// Registers what is counted here, with names as they are in `registry`'s prefix.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            depth: Gauge::default(),
            oldest: Arc::default(),
            oldest_age: Gauge::default(),
            sizes: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            // 1 ms to 32 s.
            durations: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            dropped: Family::default(),
        };
        // A count that is there before the first of its kind can be seen to grow.
        for reason in [Dropped::CallerGone, Dropped::Deadline] {
            drop(metrics.dropped.get_or_create(&DroppedLabels { reason }));
        }
        registry.register("queue_depth", "Images that wait for inference", metrics.depth.clone());
        let help = "How long the image that waits longest has waited";
        registry.register("queue_oldest_age_seconds", help, metrics.oldest_age.clone());
        registry.register("batch_size", "Images per inference", metrics.sizes.clone());
        registry.register("inference_duration_seconds", "Time of one inference", metrics.durations.clone());
        registry.register("queue_dropped", "Images that left the queue without inference", metrics.dropped.clone());
        metrics
    }

    /// Sets how many images wait, and since when the one that waits longest does.
    pub fn queue(&self, depth: usize, oldest: Option<Instant>) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// Brings the age of the oldest up to now: nothing else moves it while the queue stands still.
    pub fn note_age(&self) {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        self.oldest_age.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
    }

    /// Notes a run of `images` images.
    pub fn ran(&self, images: usize, duration: Duration) {
        self.sizes.observe(images as f64);
        self.durations.observe(duration.as_secs_f64());
    }

    /// Notes an image that is not worth running any more.
    pub fn dropped(&self, reason: Dropped) {
        self.dropped.get_or_create(&DroppedLabels { reason }).inc();
    }
}
