//! Memory that is set aside for requests.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::signed;

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
    pub(super) fn register(registry: &mut Registry) -> Self {
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
        self.taken.set(signed(bytes));
    }

    /// Sets how many may be.
    pub fn limit(&self, bytes: u64) {
        self.limit.set(signed(bytes));
    }
}
