//! Layer that gives every request an id, a deadline, timings, metrics, a log line and a span.

mod access_log;
mod counted_body;
mod panics;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{ConnectInfo, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use self::access_log::{RequestHead, RequestRecord};
pub(in crate::http) use self::access_log::{RequestNotes, is_probe};
use self::counted_body::CountedBody;
pub(in crate::http) use self::panics::PanicReply;
use super::client_address::client_address;
use super::problem::ProblemSlug;
use super::state::AppState;
use crate::serving::{ServingError, Timings, WorkContext};
use crate::spans::{RequestStart, TraceParent};

pub(in crate::http) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(in crate::http) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
pub(in crate::http) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The context of a request: deadline, timings, notes for the log.
#[derive(Clone, Debug)]
pub(in crate::http) struct RequestContext {
    /// Its deadline and its timings.
    pub(in crate::http) work: WorkContext,
    /// Facts for the access log.
    pub(in crate::http) notes: Arc<RequestNotes>,
}

impl RequestContext {
    /// Returns the context that [`observe`] attached to a request.
    ///
    /// # Errors
    /// If the request did not pass that layer, which wraps all routes.
    pub(in crate::http) fn from_request(request: &Request) -> Result<Self, ServingError> {
        let context = request.extensions().get::<Self>().cloned();
        context.ok_or_else(|| ServingError::internal(anyhow::anyhow!("the route is not observed")))
    }

    /// Creates a context for work outside HTTP requests, which is not logged.
    pub(in crate::http) fn unobserved(deadline: Instant) -> Self {
        Self { work: WorkContext { deadline, timings: Arc::new(Timings::default()) }, notes: Arc::default() }
    }
}

/// Middleware around all others except CORS and the default headers.
pub(in crate::http) async fn observe(State(app): State<AppState>, mut request: Request, next: Next) -> Response {
    let _in_flight = app.metrics().http.begin();
    let mut record = begin_record(app, &request);
    let RequestHead { route, method, request_id, begun, .. } = &record.head;
    let (id, begun) = (request_id.clone(), *begun);
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method, route);
    let deadline = begun + record.app.config().limits.timeout;
    let (timings, notes) = (Arc::clone(&record.timings), Arc::clone(&record.notes));
    let work = WorkContext { deadline, timings: Arc::clone(&timings) };
    let context = RequestContext { work, notes: Arc::clone(&notes) };
    request.extensions_mut().insert(context);
    let request = request.map(|body| Body::new(CountedBody::new(body, notes)));

    let mut response = next.run(request).instrument(span).await;

    record.answered(response.status().as_u16());
    if let Some(ProblemSlug(kind)) = response.extensions().get() {
        record.app.metrics().http.problem(kind);
    }
    if let Ok(timing) = HeaderValue::try_from(timings.header(begun.elapsed())) {
        response.headers_mut().insert(SERVER_TIMING, timing);
    }
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(CountedBody::new(body, record)))
}

fn begin_record(app: AppState, request: &Request) -> RequestRecord {
    let begun = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str).unwrap_or_default().to_owned();
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let trusted = &app.config().rates.trusted_proxies;
    let client = peer.map(|ConnectInfo(peer)| client_address(peer.ip(), request.headers(), trusted));
    let parent = parent_span(request.headers());
    let (method, request_id) = (method_label(request.method()), request_id(request.headers()));
    let span = app.span_export().map(|export| {
        let request_id = request_id.to_str().unwrap_or_default();
        export.begin(&RequestStart { method, route: &route, request_id, parent, client, begun })
    });
    let head = RequestHead { route, method, request_id, client, parent, begun };
    RequestRecord { app, head, timings: Arc::default(), notes: Arc::default(), span, reply: None }
}

/// The client's span, of which the request is a part. Ignored if the header is repeated.
fn parent_span(headers: &HeaderMap) -> Option<TraceParent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let first = values.next()?;
    if values.next().is_some() { None } else { TraceParent::parse(first.as_bytes()) }
}

/// The client's request id if it is short printable ASCII, otherwise a new UUID.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers
        .get(REQUEST_ID)
        .filter(|id| (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    let new_id = || HeaderValue::try_from(uuid::Uuid::new_v4().to_string()).expect("a UUID is ASCII");
    given.cloned().unwrap_or_else(new_id)
}

/// The method as a metric label, which is bounded because clients can send any method.
fn method_label(method: &Method) -> &'static str {
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
    fn only_short_printable_request_ids_are_kept() {
        let id = |text: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::try_from(text).unwrap())]);
            request_id(&headers)
        };
        assert_eq!(id("abc-1"), "abc-1");
        assert_ne!(id("a b"), "a b");
        assert_ne!(id(""), "");
        assert_eq!(id(&"x".repeat(129)).len(), 36);
    }

    #[test]
    fn a_repeated_traceparent_is_ignored() {
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = |count| (0..count).map(|_| (TRACEPARENT, value.parse().unwrap())).collect::<HeaderMap>();
        let found = [0, 1, 2].map(|count| parent_span(&headers(count)).is_some());
        assert_eq!(found, [false, true, false]);
    }
}
