//! Metrics of the queue and of the runs.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use tokio::time::Instant;

/// Why a request left the queue without being run. The names are values of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum DropReason {
    /// Its caller had gone.
    CallerGone,
    /// Its deadline had passed, or a run would have ended after it.
    Deadline,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: DropReason,
}

/// Metrics of the queue and of the runs. Clones count together.
#[derive(Clone, Debug)]
pub struct InferenceMetrics {
    queue_depth: Gauge,
    /// When the request that waits longest joined the queue.
    oldest: Arc<Mutex<Option<Instant>>>,
    oldest_age: Gauge<f64, AtomicU64>,
    batch_sizes: Histogram,
    run_seconds: Histogram,
    dropped: Family<DropLabels, Counter>,
}

impl InferenceMetrics {
    /// Creates the metrics and registers them, with the prefix of `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            queue_depth: Gauge::default(),
            oldest: Arc::default(),
            oldest_age: Gauge::default(),
            batch_sizes: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            // 1 ms to 32 s.
            run_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            dropped: Family::default(),
        };
        // A counter that exists before its first event can be seen to grow.
        for reason in [DropReason::CallerGone, DropReason::Deadline] {
            drop(metrics.dropped.get_or_create(&DropLabels { reason }));
        }
        registry.register("queue_depth", "Images that wait for inference", metrics.queue_depth.clone());
        let help = "How long the image that waits longest has waited";
        registry.register("queue_oldest_age_seconds", help, metrics.oldest_age.clone());
        registry.register("batch_size", "Images per inference", metrics.batch_sizes.clone());
        registry.register("inference_duration_seconds", "Time of one inference", metrics.run_seconds.clone());
        registry.register("queue_dropped", "Images that left the queue without inference", metrics.dropped.clone());
        metrics
    }

    /// Sets how many images wait, and when the oldest of them joined.
    pub fn set_queue(&self, depth: usize, oldest: Option<Instant>) {
        self.queue_depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
        *self.oldest.lock().unwrap_or_else(PoisonError::into_inner) = oldest;
    }

    /// Sets the age of the oldest image as of now. To be called before metrics are read: the queue sets it only when it
    /// changes.
    pub fn update_oldest_age(&self) {
        let oldest = *self.oldest.lock().unwrap_or_else(PoisonError::into_inner);
        self.oldest_age.set(oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
    }

    /// Counts a run of `images` images.
    pub fn record_run(&self, images: usize, duration: Duration) {
        self.batch_sizes.observe(images as f64);
        self.run_seconds.observe(duration.as_secs_f64());
    }

    /// Counts an image that left the queue without a run.
    pub fn record_dropped(&self, reason: DropReason) {
        self.dropped.get_or_create(&DropLabels { reason }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_image_ages_until_none_waits() {
        let metrics = InferenceMetrics::register(&mut Registry::default());
        let age = || {
            metrics.update_oldest_age();
            metrics.oldest_age.get()
        };
        metrics.set_queue(2, Some(Instant::now()));
        tokio::time::advance(Duration::from_secs(3)).await;
        assert!((age() - 3.0).abs() < 1e-6, "{}", age());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!((age() - 4.0).abs() < 1e-6, "{}", age());
        metrics.set_queue(0, None);
        assert!(age() < 1e-9, "{}", age());
    }
}
