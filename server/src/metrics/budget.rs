//! Metrics of the memory that is reserved for requests.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::signed;

/// Use of reserved memory.
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

/// Gauges of all budgets.
#[derive(Clone, Debug)]
pub struct BudgetMetrics {
    reserved: Family<BudgetLabels, Gauge>,
    limit: Family<BudgetLabels, Gauge>,
}

/// Gauges of one budget.
#[derive(Clone, Debug)]
pub struct BudgetGauges {
    reserved: Gauge,
    limit: Gauge,
}

impl BudgetMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { reserved: Family::default(), limit: Family::default() };
        let help = "Memory reserved for bodies, and for pixels, feature maps and replies";
        registry.register("request_memory_bytes", help, metrics.reserved.clone());
        registry.register("request_memory_limit_bytes", "Most memory that is reserved", metrics.limit.clone());
        metrics
    }

    /// Gauges of one budget.
    pub fn for_budget(&self, budget: BudgetName) -> BudgetGauges {
        let labels = BudgetLabels { budget };
        BudgetGauges {
            reserved: self.reserved.get_or_create_owned(&labels),
            limit: self.limit.get_or_create_owned(&labels),
        }
    }
}

impl BudgetGauges {
    /// Sets how many bytes are reserved.
    pub fn set_reserved(&self, bytes: u64) {
        self.reserved.set(signed(bytes));
    }

    /// Sets how many bytes may be reserved.
    pub fn set_limit(&self, bytes: u64) {
        self.limit.set(signed(bytes));
    }
}
