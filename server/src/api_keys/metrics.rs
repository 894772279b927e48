//! Metrics of API keys.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    key: String,
}

/// Requests by the name of their API key: one series a key.
#[derive(Clone, Debug)]
pub struct KeyMetrics {
    requests: Family<KeyLabels, Counter>,
}

impl KeyMetrics {
    /// Registers the metrics in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default() };
        registry.register("key_requests", "Requests that came with this API key", metrics.requests.clone());
        metrics
    }

    /// Counts a request with the key of this name.
    pub fn count_request(&self, name: &str) {
        self.requests.get_or_create(&KeyLabels { key: name.to_owned() }).inc();
    }

    /// Removes the series of a key that no longer exists.
    pub fn remove(&self, name: &str) {
        self.requests.remove(&KeyLabels { key: name.to_owned() });
    }
}
