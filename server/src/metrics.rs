//! What the server counts: typed metrics, registered once and handed to whoever counts.
//!
//! Labels are bounded: route templates, methods, status codes and the like; never anything that a
//! client writes.

mod batch;
mod budget;
mod http;

use std::fmt;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

pub use self::batch::{BatchMetrics, Dropped};
pub use self::budget::{BudgetMetrics, BudgetName, BudgetUse};
pub use self::http::{Answered, HttpMetrics, InFlight, Refusal};

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
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("densecl");
        let http = HttpMetrics::register(&mut registry);
        let batch = BatchMetrics::register(&mut registry);
        let budget = BudgetMetrics::register(&mut registry);
        Self { registry, http, batch, budget }
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

/// 1 ms to 32 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 16))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
