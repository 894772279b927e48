//! What the server counts: typed metrics, registered once and handed to whoever counts.
//!
//! Labels are bounded: route templates, methods, status codes and the like; never anything that a
//! client writes.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

mod cache;

pub use self::cache::{CacheMetrics, CacheTier, DroppedWrite, RedisFault};

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What HTTP counts.
    pub http: HttpMetrics,
    /// What the batcher counts.
    pub batch: BatchMetrics,
    /// Memory set aside for requests.
    pub budget: BudgetMetrics,
    /// What the cache of features counts.
    pub cache: CacheMetrics,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("densecl");
        let http = HttpMetrics::register(&mut registry);
        let batch = BatchMetrics::register(&mut registry);
        let budget = BudgetMetrics::register(&mut registry);
        let cache = CacheMetrics::register(&mut registry);
        Self { registry, http, batch, budget, cache }
    }

    /// The `OpenMetrics` text.
    ///
    /// # Errors
    /// If a metric cannot be written, which strings do not do.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    method: &'static str,
    status: u16,
}

/// One answered request.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Template of the route, such as `/models/{name}`; empty if none matched.
    pub route: &'a str,
    /// One of the usual methods, else `other`.
    pub method: &'static str,
    /// The status code.
    pub status: u16,
    /// From the end of the request's head to the start of the reply.
    pub duration: Duration,
}

/// Requests and how they ended.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RouteLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    in_flight: Gauge,
    connections: Gauge,
    refused: Family<RefusalLabels, Counter>,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    panics: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

impl HttpMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            refused: Family::default(),
            stages: Family::new_with_constructor(seconds),
            panics: Counter::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register("http_request_duration_seconds", "Time to the start of the reply", metrics.durations.clone());
        registry.register("http_requests_in_flight", "Requests not yet answered", metrics.in_flight.clone());
        registry.register("http_connections", "Connections that are open", metrics.connections.clone());
        registry.register("http_refused", "Requests refused before any work on them", metrics.refused.clone());
        registry.register("stage_duration_seconds", "Time of one stage of one request", metrics.stages.clone());
        registry.register("http_panics", "Requests that ended in a panic", metrics.panics.clone());
        metrics
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Notes how a request ended.
    pub fn answered(&self, answered: Answered<'_>) {
        let Answered { route, method, status, duration } = answered;
        let labels = RouteLabels { route: route.to_owned(), method, status };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Sets how many connections are open.
    pub fn connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Notes a request that was refused before any work on it.
    pub fn refused(&self, reason: Refusal) {
        self.refused.get_or_create(&RefusalLabels { reason }).inc();
    }

    /// Notes how long a stage (decode, queue, …) of a request took.
    pub fn stage(&self, stage: &'static str, duration: Duration) {
        self.stages.get_or_create(&StageLabels { stage }).observe(duration.as_secs_f64());
    }

    /// Notes a panic that became a 500.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

/// Why a request was refused before any work on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refusal {
    /// Its client had used up its rate.
    RateLimited,
    /// Its connection was one too many.
    TooManyConnections,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    reason: Refusal,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

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
    sizes: Histogram,
    durations: Histogram,
    dropped: Family<DroppedLabels, Counter>,
}

impl BatchMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            depth: Gauge::default(),
            sizes: Histogram::new(exponential_buckets(1.0, 2.0, 8)),
            durations: seconds(),
            dropped: Family::default(),
        };
        registry.register("queue_depth", "Images that wait for inference", metrics.depth.clone());
        registry.register("batch_size", "Images per inference", metrics.sizes.clone());
        registry.register("inference_duration_seconds", "Time of one inference", metrics.durations.clone());
        registry.register("queue_dropped", "Images that left the queue without inference", metrics.dropped.clone());
        metrics
    }

    /// Sets how many images wait.
    pub fn queue_depth(&self, depth: usize) {
        self.depth.set(i64::try_from(depth).unwrap_or(i64::MAX));
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

/// What memory is set aside for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum BudgetName {
    /// Bodies that arrive or wait.
    Bodies,
    /// Pixels, feature maps and replies.
    Work,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BudgetLabels {
    budget: BudgetName,
}

/// Memory set aside for requests.
#[derive(Clone, Debug)]
pub struct BudgetMetrics {
    taken: Family<BudgetLabels, Gauge>,
    limit: Family<BudgetLabels, Gauge>,
}

/// One of the budgets.
#[derive(Clone, Debug)]
pub struct BudgetUse {
    taken: Gauge,
    limit: Gauge,
}

impl BudgetMetrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self { taken: Family::default(), limit: Family::default() };
        let help = "Memory set aside for bodies, and for pixels, feature maps and replies";
        registry.register("request_memory_bytes", help, metrics.taken.clone());
        registry.register("request_memory_limit_bytes", "Most memory that is set aside", metrics.limit.clone());
        metrics
    }

    /// The figures of one budget.
    pub fn of(&self, budget: BudgetName) -> BudgetUse {
        let labels = BudgetLabels { budget };
        BudgetUse { taken: self.taken.get_or_create_owned(&labels), limit: self.limit.get_or_create_owned(&labels) }
    }
}

impl BudgetUse {
    /// Sets how many bytes are set aside.
    pub fn taken(&self, bytes: u64) {
        self.taken.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets how many may be.
    pub fn limit(&self, bytes: u64) {
        self.limit.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// 1 ms to 32 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_everything_with_units() {
        let metrics = Metrics::new();
        metrics.http.answered(Answered {
            route: "/features",
            method: "POST",
            status: 200,
            duration: Duration::from_millis(3),
        });
        let guard = metrics.http.begin();
        metrics.batch.dropped(Dropped::CallerGone);
        let text = metrics.text().unwrap();
        for line in [
            r#"densecl_http_requests_total{route="/features",method="POST",status="200"} 1"#,
            "densecl_http_requests_in_flight 1",
            r#"densecl_queue_dropped_total{reason="CallerGone"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(guard);
        assert!(metrics.text().unwrap().contains("densecl_http_requests_in_flight 0"));
    }
}
