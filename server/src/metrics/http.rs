//! Requests, connections, and how they end.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::seconds;

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
    pub(super) fn register(registry: &mut Registry) -> Self {
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
