//! Spans of requests for a collector, by OTLP over HTTP.
//!
//! A span is handed to a bounded queue and sent by a thread of its own, a few seconds later. When
//! the collector is slow or gone, the queue fills up and spans are dropped; requests never wait.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};

use super::{Arrival, CollectorUrl, ExportError, Outcome, StageSpan, TraceParent};

/// Spans that wait to be sent; about 2 MB. Any more are dropped.
const MAX_QUEUED: usize = 4096;
/// How often spans are sent.
const INTERVAL: Duration = Duration::from_secs(2);
/// For the collector to take a batch, also the last one.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The way to a collector; cloning shares it.
#[derive(Clone, Debug)]
pub struct SpanExport {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl SpanExport {
    /// Starts to export; whether the collector is there is not looked at.
    ///
    /// # Errors
    /// If the HTTP client cannot be made.
    pub fn start(collector: &CollectorUrl) -> Result<Self, ExportError> {
        let exporter = SpanExporter::builder().with_http().with_endpoint(collector.traces()).with_timeout(TIMEOUT);
        let exporter = exporter.build().map_err(|error| ExportError(error.into()))?;
        let config = BatchConfigBuilder::default().with_max_queue_size(MAX_QUEUED).with_scheduled_delay(INTERVAL);
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
        let tracer = provider.tracer("densecl-server");
        Ok(Self { provider, tracer })
    }

    /// Begins the span of a request. One whose caller does not keep the trace is not exported.
    pub fn begin(&self, arrival: &Arrival<'_>) -> RequestSpan {
        let clock = Clock::now();
        let Arrival { method, route, request_id, parent, client, begun } = *arrival;
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(context(parent)));
        let mut attributes = vec![
            KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
            KeyValue::new("densecl.request_id", request_id.to_owned()),
        ];
        if !route.is_empty() {
            attributes.push(KeyValue::new("http.route", route.to_owned()));
        }
        attributes.extend(client.map(|client| KeyValue::new("client.address", client.to_string())));
        let name = if route.is_empty() { method.to_owned() } else { format!("{method} {route}") };
        let span = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = span.with_start_time(clock.time_of(begun)).start_with_context(&self.tracer, &parent);
        RequestSpan { span, tracer: self.tracer.clone(), clock }
    }

    /// Sends what has not been sent, but not for long. This blocks.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// What the spans say of their origin; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` add to it.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let builder = Resource::builder().with_attribute(version);
    if named { builder.build() } else { builder.with_service_name("densecl-server").build() }
}

fn context(parent: TraceParent) -> SpanContext {
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace_id, span_id) = (TraceId::from(parent.trace_id), SpanId::from(parent.span_id));
    SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE)
}

/// One moment on both clocks: spans tell the time of day, intervals are measured.
#[derive(Clone, Copy, Debug)]
struct Clock(Instant, SystemTime);

impl Clock {
    fn now() -> Self {
        Self(Instant::now(), SystemTime::now())
    }

    fn time_of(self, moment: Instant) -> SystemTime {
        match moment.checked_duration_since(self.0) {
            Some(later) => self.1 + later,
            None => self.1 - self.0.duration_since(moment),
        }
    }
}

/// The span of a request that is under way.
#[derive(Debug)]
pub struct RequestSpan {
    span: opentelemetry_sdk::trace::Span,
    tracer: SdkTracer,
    clock: Clock,
}

impl RequestSpan {
    /// The trace that the span is a part of.
    pub fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.span.span_context().trace_id().to_bytes())
    }

    /// Ends the span, with one below it for each stage.
    pub fn end(mut self, outcome: &Outcome<'_>, stages: &[StageSpan]) {
        let below = Context::new().with_remote_span_context(self.span.span_context().clone());
        for stage in stages {
            let child = self.tracer.span_builder(stage.name).with_kind(SpanKind::Internal);
            let mut child =
                child.with_start_time(self.clock.time_of(stage.begun)).start_with_context(&self.tracer, &below);
            child.end_with_timestamp(self.clock.time_of(stage.ended));
        }
        let Outcome { status, model, layer, bytes } = *outcome;
        let span = &mut self.span;
        span.set_attributes(model.map(|model| KeyValue::new("densecl.model", model.to_owned())));
        span.set_attributes(layer.map(|layer| KeyValue::new("densecl.layer", layer.to_owned())));
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        span.set_attribute(KeyValue::new("http.request.body.size", size(bytes.0)));
        span.set_attribute(KeyValue::new("http.response.body.size", size(bytes.1)));
        span.set_attributes(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        // By convention a server's span failed only if the server did.
        if status.is_some_and(|status| status >= 500) {
            span.set_status(Status::error(""));
        }
        span.end_with_timestamp(self.clock.time_of(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_run_alike() {
        let clock = Clock::now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.time_of(clock.0 + second), clock.1 + second);
        assert_eq!(clock.time_of(clock.0.checked_sub(second).unwrap()), clock.1 - second);
    }

    #[test]
    fn a_span_belongs_to_its_caller_s_trace_even_if_nobody_listens() {
        // Port 9 of this machine discards, if there is anyone at all.
        let export = SpanExport::start(&"http://127.0.0.1:9".parse().unwrap()).unwrap();
        let parent = TraceParent { trace_id: 7, span_id: 8, sampled: true };
        let begun = Instant::now();
        let arrival =
            Arrival { method: "GET", route: "/models", request_id: "1", parent: Some(parent), client: None, begun };
        let span = export.begin(&arrival);
        assert_eq!(span.trace_id(), 7);
        let alone = export.begin(&Arrival { parent: None, ..arrival });
        assert!(alone.trace_id() != 7 && alone.trace_id() != 0);
        let outcome = Outcome { status: Some(200), model: None, layer: None, bytes: (0, 0) };
        span.end(&outcome, &[StageSpan { name: "decode", begun, ended: Instant::now() }]);
        let waited = Instant::now();
        alone.end(&outcome, &[]);
        assert!(waited.elapsed() < Duration::from_secs(1), "a request waited for the collector");
    }
}
