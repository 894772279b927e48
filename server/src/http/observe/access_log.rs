//! Access log: one line per request once it has ended, which also completes its metrics and its span.
//!
//! Of the client's own text only a checked request id is logged: the route is the template that matched, and a model or
//! a key is named only if it exists.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;

use super::counted_body::ByteCounter;
use crate::http::state::AppState;
use crate::metrics::{AnsweredRequest, SentReply};
use crate::serving::{Stage, Timings};
use crate::spans::{RequestEnd, RequestSpan, StageSpan, TraceParent};
use densecl_inference::backend::LayerSet;
use densecl_inference::registry::ServedModel;

/// Facts about a request that become known while it is answered.
#[derive(Debug, Default)]
pub(in crate::http) struct RequestNotes {
    subject: OnceLock<Subject>,
    key: OnceLock<Arc<str>>,
    body_bytes: AtomicU64,
}

/// The features that a request asks for. Model, version and layer exist.
#[derive(Debug)]
struct Subject {
    model: String,
    version: u32,
    layer: String,
}

impl RequestNotes {
    /// Sets the features that the request asks for. Only the first call has an effect.
    pub(in crate::http) fn set_subject(&self, model: &ServedModel, layers: &LayerSet) {
        self.subject.get_or_init(|| Subject {
            model: model.name().to_owned(),
            version: model.version(),
            layer: layers.names().join("+"),
        });
    }

    /// Sets the name of the request's API key. Only the first call has an effect.
    pub(in crate::http) fn set_key(&self, key: Arc<str>) {
        self.key.get_or_init(|| key);
    }
}

/// Counts the bytes of the request's body.
impl ByteCounter for Arc<RequestNotes> {
    fn add(&mut self, bytes: u64) {
        self.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The head of a request, for the log, the metrics and the span.
#[derive(Debug)]
pub(super) struct RequestHead {
    pub(super) route: String,
    /// One of the usual methods, or `other`.
    pub(super) method: &'static str,
    pub(super) request_id: HeaderValue,
    pub(super) client: Option<IpAddr>,
    pub(super) parent: Option<TraceParent>,
    pub(super) begun: Instant,
}

/// A request from its head to the last byte of its reply. Dropping the record ends the request.
pub(super) struct RequestRecord {
    pub(super) app: AppState,
    pub(super) head: RequestHead,
    pub(super) timings: Arc<Timings>,
    pub(super) notes: Arc<RequestNotes>,
    pub(super) span: Option<RequestSpan>,
    /// Set once the reply has begun.
    pub(super) reply: Option<Reply>,
}

/// The reply to a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    /// Time to its first byte.
    pub(super) duration: Duration,
    /// Bytes of its body that have been sent so far.
    pub(super) bytes: u64,
    /// True if the whole body has been sent.
    pub(super) is_whole: bool,
}

/// Counts the bytes of the reply's body.
impl ByteCounter for RequestRecord {
    fn add(&mut self, bytes: u64) {
        if let Some(reply) = &mut self.reply {
            reply.bytes += bytes;
        }
    }

    fn end(&mut self) {
        if let Some(reply) = &mut self.reply {
            reply.is_whole = true;
        }
    }
}

impl RequestRecord {
    /// Records that the reply has begun, and updates the metrics.
    pub(super) fn answered(&mut self, status: u16) {
        let duration = self.head.begun.elapsed();
        let http = &self.app.metrics().http;
        let model = self.notes.subject.get().map_or("", |subject| subject.model.as_str());
        let RequestHead { route, method, .. } = &self.head;
        http.answered(AnsweredRequest { route, method, status, model, duration });
        for stage in Stage::ALL {
            let time = self.timings.total(stage);
            if !time.is_zero() {
                http.stage(stage.name(), time);
            }
        }
        self.reply = Some(Reply { status, duration, bytes: 0, is_whole: false });
    }

    fn write_line(&self, trace_id: Option<u128>) {
        let RequestHead { route, method, request_id, client, .. } = &self.head;
        let subject = self.notes.subject.get();
        let model = subject.map(|subject| format!("{}/{}", subject.model, subject.version));
        let stage = |stage| Some(self.timings.total(stage)).filter(|time| !time.is_zero()).map(milliseconds);
        let outcome = match self.reply {
            Some(Reply { is_whole: true, .. }) => "complete",
            Some(_) => "broken off",
            None => "abandoned",
        };
        // A macro, because the level of an event must be a constant and both levels log the same fields.
        macro_rules! line {
            ($level:expr) => {
                tracing::event!(
                    target: "access",
                    $level,
                    request_id = request_id.to_str().unwrap_or_default(),
                    trace_id = trace_id.map(|id| tracing::field::display(format!("{id:032x}"))),
                    client = client.map(tracing::field::display),
                    key = self.notes.key.get().map(|name| &**name),
                    method,
                    route = route.as_str(),
                    status = self.reply.map(|reply| reply.status),
                    model,
                    layer = subject.map(|subject| subject.layer.as_str()),
                    bytes_in = self.notes.body_bytes.load(Ordering::Relaxed),
                    bytes_out = self.reply.map_or(0, |reply| reply.bytes),
                    duration_ms = self.reply.map(|reply| milliseconds(reply.duration)),
                    whole_ms = milliseconds(self.head.begun.elapsed()),
                    decode_ms = stage(Stage::Decode),
                    queue_ms = stage(Stage::Queue),
                    inference_ms = stage(Stage::Inference),
                    match_ms = stage(Stage::Match),
                    encode_ms = stage(Stage::Encode),
                    outcome,
                )
            };
        }
        // Probes come every few seconds and would fill the log.
        if is_probe(route) { line!(tracing::Level::DEBUG) } else { line!(tracing::Level::INFO) }
    }

    fn end_span(&self, span: RequestSpan) {
        let subject = self.notes.subject.get();
        let model = subject.map(|subject| format!("{}/{}", subject.model, subject.version));
        let outcome = RequestEnd {
            status: self.reply.map(|reply| reply.status),
            model: model.as_deref(),
            layer: subject.map(|subject| subject.layer.as_str()),
            bytes: (self.notes.body_bytes.load(Ordering::Relaxed), self.reply.map_or(0, |reply| reply.bytes)),
        };
        let stages = self.timings.take_intervals().into_iter();
        let stages = stages.map(|it| StageSpan { name: it.stage.name(), begun: it.begun, ended: it.ended });
        span.end(&outcome, &stages.collect::<Vec<_>>());
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        let http = &self.app.metrics().http;
        match &self.reply {
            Some(reply) => {
                let duration = self.head.begun.elapsed();
                http.sent(SentReply { route: &self.head.route, duration, bytes: reply.bytes });
            }
            None => http.abandoned(),
        }
        let span = self.span.take();
        let trace_id = span.as_ref().map(RequestSpan::trace_id).or(self.head.parent.map(|parent| parent.trace_id));
        self.write_line(trace_id);
        if let Some(span) = span {
            self.end_span(span);
        }
    }
}

/// True if this path answers at any load, even on a connection beyond the limit.
pub(in crate::http) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz" | "/metrics" | "/v2/health/live" | "/v2/health/ready")
}

/// Milliseconds, with a resolution of a microsecond.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1e3
}
