//! Metrics of the program's version and its engines.

use std::collections::BTreeSet;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EngineLabels {
    onnxruntime_commit: String,
    provider: String,
}

/// Commit that this program was built from, by the variable `DENSECL_REVISION` of the build; else
/// `unknown`.
pub fn revision() -> &'static str {
    option_env!("DENSECL_REVISION").filter(|revision| !revision.is_empty()).unwrap_or("unknown")
}

/// Version of the program, and its engines.
#[derive(Clone, Debug)]
pub struct BuildMetrics {
    engines: Family<EngineLabels, Gauge>,
}

impl BuildMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let program = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("revision", revision())]);
        registry.register("build", "The program", program);
        let metrics = Self { engines: Family::default() };
        registry.register("engine_info", "ONNX Runtime, and the providers that run models", metrics.engines.clone());
        metrics
    }

    /// Notes that engines of ONNX Runtime, built from this commit, have started on these providers.
    pub fn set_engines(&self, onnxruntime_commit: &str, providers: BTreeSet<String>) {
        for provider in providers {
            let labels = EngineLabels { onnxruntime_commit: onnxruntime_commit.to_owned(), provider };
            self.engines.get_or_create(&labels).set(1);
        }
    }
}
