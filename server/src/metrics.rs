//! Metrics of the server: the parts register theirs here, once, and `/metrics` shows them.
//!
//! Labels are bounded: route templates, methods, status codes, names of models that are served and
//! of keys that exist; never text of a client.

mod budget;
mod build;
mod gpu;
mod http;
mod process;
mod text_format;

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::api_keys::KeyMetrics;
use crate::cache::CacheMetrics;
use densecl_inference::metrics::InferenceMetrics;

pub use self::budget::{BudgetGauges, BudgetMetrics, BudgetName};
pub use self::build::{BuildMetrics, revision};
pub use self::gpu::GpuMetrics;
pub use self::http::{AnsweredRequest, HttpMetrics, InFlightGuard, SentReply};
pub use self::text_format::MetricsFormat;

/// All metrics of `/metrics`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Requests and connections.
    pub http: HttpMetrics,
    /// The queue and the runs of models.
    pub batch: InferenceMetrics,
    /// Memory reserved for requests.
    pub budget: BudgetMetrics,
    /// Requests of each API key.
    pub keys: KeyMetrics,
    /// Version of the program, and its engines.
    pub build: BuildMetrics,
    /// GPUs that engines run on.
    pub gpu: GpuMetrics,
    /// The cache of features.
    pub cache: CacheMetrics,
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        // Without the prefix: Prometheus has conventional names for these.
        let mut registry = Registry::default();
        process::register(&mut registry);
        let ours = registry.sub_registry_with_prefix("densecl");
        let http = HttpMetrics::register(ours);
        let batch = InferenceMetrics::register(ours);
        let budget = BudgetMetrics::register(ours);
        let keys = KeyMetrics::register(ours);
        let build = BuildMetrics::register(ours);
        let gpu = GpuMetrics::register(ours);
        let cache = CacheMetrics::register(ours);
        Self { registry, http, batch, budget, keys, build, gpu, cache }
    }

    /// Encodes the current values.
    ///
    /// # Errors
    /// If a metric cannot be encoded; writing to a string does not fail.
    pub fn text(&self, format: MetricsFormat) -> Result<String, fmt::Error> {
        self.batch.update_oldest_age();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(match format {
            MetricsFormat::OpenMetrics => text,
            MetricsFormat::Text => text_format::from_open_metrics(&text),
        })
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Buckets from 1 ms to 32 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

/// Converts to the type of a gauge, which has no unsigned numbers.
fn signed(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use densecl_inference::metrics::DropReason;

    use super::*;

    fn metrics() -> Metrics {
        let metrics = Metrics::new();
        let answered = AnsweredRequest {
            route: "/features",
            method: "POST",
            status: 200,
            model: "densecl",
            duration: Duration::from_millis(3),
        };
        metrics.http.answered(answered);
        metrics.http.problem("rate-limited");
        metrics.http.sent(SentReply { route: "/features", duration: Duration::from_millis(4), bytes: 12 });
        metrics.http.stage("decode", Duration::from_millis(1));
        metrics.batch.record_dropped(DropReason::CallerGone);
        metrics.budget.for_budget(BudgetName::Work).set_reserved(7);
        metrics.keys.count_request("someone");
        metrics.build.set_engines("6af1a93", ["cpu".to_owned()].into());
        metrics
    }

    #[test]
    fn text_shows_every_metric_with_its_labels() {
        let metrics = metrics();
        let guard = metrics.http.begin();
        let text = metrics.text(MetricsFormat::OpenMetrics).unwrap();
        for line in [
            r#"densecl_http_requests_total{route="/features",method="POST",status="200",model="densecl"} 1"#,
            r#"densecl_http_problems_total{problem="rate-limited"} 1"#,
            "densecl_http_requests_in_flight 1",
            r#"densecl_http_reply_bytes_total{route="/features"} 12"#,
            r#"densecl_queue_dropped_total{reason="CallerGone"} 1"#,
            r#"densecl_key_requests_total{key="someone"} 1"#,
            r#"densecl_engine_info{onnxruntime_commit="6af1a93",provider="cpu"} 1"#,
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        drop(guard);
        assert!(metrics.text(MetricsFormat::OpenMetrics).unwrap().contains("densecl_http_requests_in_flight 0"));
    }

    #[test]
    fn names_have_a_prefix_and_a_unit() {
        const WITHOUT_UNIT: [&str; 10] = [
            "densecl_cache_entries",
            "densecl_cache_redis_up",
            "densecl_http_requests_in_flight",
            "densecl_http_connections",
            "densecl_queue_depth",
            "densecl_batch_size",
            "densecl_engine_info",
            "process_open_fds",
            "process_max_fds",
            "process_threads",
        ];
        let text = metrics().text(MetricsFormat::OpenMetrics).unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let mut count = 0;
        for (name, kind) in types {
            count += 1;
            let has_unit = name.ends_with("_seconds") || name.ends_with("_bytes") || matches!(kind, "counter" | "info");
            assert!(has_unit || WITHOUT_UNIT.contains(&name), "{name} ({kind}) has no unit");
            assert!(name.starts_with("densecl_") || name.starts_with("process_"), "{name}");
        }
        assert!(count > 20, "{text}");
    }
}
