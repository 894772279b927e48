//! Spans of requests for a collector, by OTLP over HTTP.
//!
//! A finished span goes into a bounded queue, and a thread sends it a few seconds later. If the
//! collector is slow or unreachable, the queue fills up and spans are dropped; requests never wait.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer,
    TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};

use super::{CollectorUrl, ExportError, RequestEnd, RequestStart, StageSpan, TraceParent};

/// Spans that may wait to be sent, about 2 MB; more are dropped.
const MAX_QUEUED: usize = 4096;
/// Interval between two batches.
const INTERVAL: Duration = Duration::from_secs(2);
/// For the collector to take a batch.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Exporter of spans; clones share it.
#[derive(Clone, Debug)]
pub struct SpanExport {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl SpanExport {
    /// Starts the export. Succeeds without a collector, too.
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

    /// Starts the span of a request. It is not exported if the caller's trace is not sampled.
    pub fn begin(&self, start: &RequestStart<'_>) -> RequestSpan {
        let clock = Clock::now();
        let RequestStart { method, route, request_id, parent, client, begun } = *start;
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

    /// Sends the remaining spans. Blocks for at most 3 s.
    pub fn shut_down(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Resource attributes of the spans; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` add to them.
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

/// One moment on two clocks: spans need the time of day, and intervals are measured on the monotonic clock.
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

/// Span of a running request.
#[derive(Debug)]
pub struct RequestSpan {
    span: opentelemetry_sdk::trace::Span,
    tracer: SdkTracer,
    clock: Clock,
}

impl RequestSpan {
    /// Trace of the span.
    pub fn trace_id(&self) -> u128 {
        u128::from_be_bytes(self.span.span_context().trace_id().to_bytes())
    }

    /// Ends the span, with a child span for each stage.
    pub fn end(mut self, end: &RequestEnd<'_>, stages: &[StageSpan]) {
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        for stage in stages {
            let child = self.tracer.span_builder(stage.name).with_kind(SpanKind::Internal);
            let mut child =
                child.with_start_time(self.clock.time_of(stage.begun)).start_with_context(&self.tracer, &parent);
            child.end_with_timestamp(self.clock.time_of(stage.ended));
        }
        let RequestEnd { status, model, layer, bytes } = *end;
        let span = &mut self.span;
        span.set_attributes(model.map(|model| KeyValue::new("densecl.model", model.to_owned())));
        span.set_attributes(layer.map(|layer| KeyValue::new("densecl.layer", layer.to_owned())));
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        span.set_attribute(KeyValue::new("http.request.body.size", size(bytes.0)));
        span.set_attribute(KeyValue::new("http.response.body.size", size(bytes.1)));
        span.set_attributes(status.map(|status| KeyValue::new("http.response.status_code", i64::from(status))));
        // By the semantic conventions, an error of the client is not an error of a server's span.
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
    fn instants_become_times_of_day() {
        let clock = Clock::now();
        let second = Duration::from_secs(1);
        assert_eq!(clock.time_of(clock.0 + second), clock.1 + second);
        assert_eq!(clock.time_of(clock.0.checked_sub(second).unwrap()), clock.1 - second);
    }

    #[test]
    fn a_span_belongs_to_its_caller_s_trace() {
        // Nothing answers on the discard port; the export starts all the same.
        let export = SpanExport::start(&"http://127.0.0.1:9".parse().unwrap()).unwrap();
        let parent = TraceParent { trace_id: 7, span_id: 8, sampled: true };
        let begun = Instant::now();
        let start = RequestStart {
            method: "GET",
            route: "/models",
            request_id: "1",
            parent: Some(parent),
            client: None,
            begun,
        };
        let span = export.begin(&start);
        assert_eq!(span.trace_id(), 7);
        let alone = export.begin(&RequestStart { parent: None, ..start });
        assert!(alone.trace_id() != 7 && alone.trace_id() != 0);
        let end = RequestEnd { status: Some(200), model: None, layer: None, bytes: (0, 0) };
        span.end(&end, &[StageSpan { name: "decode", begun, ended: Instant::now() }]);
        alone.end(&end, &[]);
    }
}
