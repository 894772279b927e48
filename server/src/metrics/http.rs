//! Metrics of requests and connections.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{seconds, signed};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: &'static str,
    status: u16,
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    route: String,
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageLabels {
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProblemLabels {
    problem: &'static str,
}

/// An answered request.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredRequest<'a> {
    /// Template of the route, such as `/models/{name}`; empty if none matched.
    pub route: &'a str,
    /// One of the usual methods, else `other`.
    pub method: &'static str,
    /// The status code.
    pub status: u16,
    /// The requested model, if it is served; else empty.
    pub model: &'a str,
    /// From the end of the request's head to the start of the reply.
    pub duration: Duration,
}

/// A reply that was sent to its end, or broken off.
#[derive(Clone, Copy, Debug)]
pub struct SentReply<'a> {
    /// Template of the route; empty if none matched.
    pub route: &'a str,
    /// From the end of the request's head to the last byte of the reply.
    pub duration: Duration,
    /// Bytes of the body, as compressed for this client.
    pub bytes: u64,
}

/// Metrics of requests and connections.
#[derive(Clone, Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<AnswerLabels, Histogram, fn() -> Histogram>,
    whole_durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    reply_bytes: Family<RouteLabels, Counter>,
    problems: Family<ProblemLabels, Counter>,
    abandoned: Counter,
    in_flight: Gauge,
    connections: Gauge,
    stages: Family<StageLabels, Histogram, fn() -> Histogram>,
    panics: Counter,
}

impl HttpMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(seconds),
            whole_durations: Family::new_with_constructor(seconds),
            reply_bytes: Family::default(),
            problems: Family::default(),
            abandoned: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            stages: Family::new_with_constructor(seconds),
            panics: Counter::default(),
        };
        registry.register("http_requests", "Requests answered", metrics.requests.clone());
        registry.register("http_request_duration_seconds", "Time to the start of the reply", metrics.durations.clone());
        registry.register(
            "http_whole_duration_seconds",
            "Time to the end of the reply",
            metrics.whole_durations.clone(),
        );
        registry.register("http_reply_bytes", "Bytes of replies' bodies", metrics.reply_bytes.clone());
        registry.register(
            "http_problems",
            "Requests refused or failed, by the type of problem",
            metrics.problems.clone(),
        );
        registry.register("http_abandoned", "Requests whose client left before the reply", metrics.abandoned.clone());
        registry.register("http_requests_in_flight", "Requests not yet answered", metrics.in_flight.clone());
        registry.register("http_connections", "Connections that are open", metrics.connections.clone());
        registry.register("stage_duration_seconds", "Time of one stage of one request", metrics.stages.clone());
        registry.register("http_panics", "Requests that ended in a panic", metrics.panics.clone());
        metrics
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn begin(&self) -> InFlightGuard {
        self.in_flight.inc();
        InFlightGuard(self.in_flight.clone())
    }

    /// Counts an answered request.
    pub fn answered(&self, answered: AnsweredRequest<'_>) {
        let AnsweredRequest { route, method, status, model, duration } = answered;
        let labels = RequestLabels { route: route.to_owned(), method, status, model: model.to_owned() };
        self.requests.get_or_create(&labels).inc();
        let labels = AnswerLabels { route: route.to_owned(), method, status };
        self.durations.get_or_create(&labels).observe(duration.as_secs_f64());
    }

    /// Counts a reply that is over.
    pub fn sent(&self, sent: SentReply<'_>) {
        let labels = RouteLabels { route: sent.route.to_owned() };
        self.whole_durations.get_or_create(&labels).observe(sent.duration.as_secs_f64());
        self.reply_bytes.get_or_create(&labels).inc_by(sent.bytes);
    }

    /// Counts a request that was answered with a problem of this kind, the last part of its type.
    pub fn problem(&self, kind: &'static str) {
        self.problems.get_or_create(&ProblemLabels { problem: kind }).inc();
    }

    /// Counts a request whose client left before there was a reply.
    pub fn abandoned(&self) {
        self.abandoned.inc();
    }

    /// Sets how many connections are open.
    pub fn set_connections(&self, open: usize) {
        self.connections.set(signed(open));
    }

    /// Observes how long a stage (decode, queue, …) of a request took.
    pub fn stage(&self, stage: &'static str, duration: Duration) {
        self.stages.get_or_create(&StageLabels { stage }).observe(duration.as_secs_f64());
    }

    /// Counts a panic that became a 500.
    pub fn panicked(&self) {
        self.panics.inc();
    }
}

/// Counts a request as in flight until it is dropped.
#[derive(Debug)]
pub struct InFlightGuard(Gauge);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}
