//! Requests by the name of the API key that they came with.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KeyLabels {
    key: String,
}

/// Requests by key. There are as many series as keys.
#[derive(Clone, Debug)]
pub struct KeyMetrics {
    requests: Family<KeyLabels, Counter>,
}

impl KeyMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { requests: Family::default() };
        registry.register("key_requests", "Requests that came with this API key", metrics.requests.clone());
        metrics
    }

    /// Notes a request with the key of this name.
    pub fn asked(&self, name: &str) {
        self.requests.get_or_create(&KeyLabels { key: name.to_owned() }).inc();
    }

    /// Forgets a key that exists no more.
    pub fn forget(&self, name: &str) {
        self.requests.remove(&KeyLabels { key: name.to_owned() });
    }
}
