//! What happens to every request: an id, a deadline, timings, metrics, a line in the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::state::AppState;
use crate::metrics::Answered;

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// What a handler knows of its request beside the request itself.
#[derive(Clone, Debug)]
pub(super) struct RequestContext {
    /// When the reply must have begun.
    pub(super) deadline: Instant,
    pub(super) timings: Arc<Timings>,
}

/// A part of the work on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Decode,
    Queue,
    Inference,
    Match,
    Encode,
}

impl Stage {
    const ALL: [Self; 5] = [Self::Decode, Self::Queue, Self::Inference, Self::Match, Self::Encode];

    fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Inference => "inference",
            Self::Match => "match",
            Self::Encode => "encode",
        }
    }
}

/// Time spent per stage. Two images of one request add up, though they may run side by side.
#[derive(Debug, Default)]
pub(super) struct Timings([AtomicU64; Stage::ALL.len()]);

impl Timings {
    pub(super) fn add(&self, stage: Stage, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0[stage as usize].fetch_add(micros, Ordering::Relaxed);
    }

    /// Runs `work` and adds its time to `stage`.
    pub(super) fn measure<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let result = work();
        self.add(stage, begun.elapsed());
        result
    }

    fn of(&self, stage: Stage) -> Duration {
        Duration::from_micros(self.0[stage as usize].load(Ordering::Relaxed))
    }

    /// The value of `Server-Timing`, in milliseconds.
    fn header(&self, total: Duration) -> String {
        let stages = Stage::ALL.map(|stage| (stage.name(), self.of(stage)));
        let all = stages.into_iter().chain([("total", total)]);
        let parts: Vec<String> =
            all.map(|(name, time)| format!("{name};dur={:.2}", time.as_secs_f64() * 1e3)).collect();
        parts.join(", ")
    }
}

/// The outermost layer but for CORS.
pub(super) async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let _in_flight = app.metrics().http.begin();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default().to_owned();
    let method = bounded(request.method());
    let timings = Arc::new(Timings::default());
    let deadline = begun + app.config().limits.timeout;
    request.extensions_mut().insert(RequestContext { deadline, timings: Arc::clone(&timings) });

    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method, route);
    let mut response = next.run(request).instrument(span.clone()).await;

    let duration = begun.elapsed();
    let status = response.status().as_u16();
    app.metrics().http.answered(Answered { route: &route, method, status, duration });
    for stage in Stage::ALL {
        let time = timings.of(stage);
        if !time.is_zero() {
            app.metrics().http.stage(stage.name(), time);
        }
    }
    tracing::debug!(parent: &span, status, duration_ms = duration.as_secs_f64() * 1e3, "answered");
    if let Ok(timing) = HeaderValue::try_from(timings.header(duration)) {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// The client's own id if it is fit for logs, else a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    let made = || HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).expect("a UUID is ASCII");
    given.cloned().unwrap_or_else(made)
}

/// Anyone can invent a method; a label must not follow.
fn bounded(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_milliseconds() {
        let timings = Timings::default();
        timings.add(Stage::Decode, Duration::from_micros(1250));
        timings.add(Stage::Decode, Duration::from_micros(250));
        let header = timings.header(Duration::from_millis(20));
        assert_eq!(
            header,
            "decode;dur=1.50, queue;dur=0.00, inference;dur=0.00, match;dur=0.00, encode;dur=0.00, total;dur=20.00"
        );
    }

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let id = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::try_from(text).unwrap())]);
            request_id(&headers)
        };
        assert_eq!(id("abc-1"), "abc-1");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(""), "");
        assert_eq!(id(&"x".repeat(129)).len(), 36);
    }
}
