//! One connection: serves HTTP/1.1 or HTTP/2 until the connection ends or a timeout closes it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use super::activity::{Activity, ConnectionTimeout, Protocol};
use super::stream::Stream;
use super::watched_reply::WatchedReply;
use crate::config::ConnectionLimits;
use crate::http::guard::error::GuardError;
use crate::http::problem::ToProblem as _;
use crate::http::state::{AppState, Phase};
use crate::http::{observe, reply};

/// Limit of a request's head.
const MAX_HEAD_BYTES: u32 = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Concurrent requests on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// Bytes of an HTTP/2 reply that may be buffered beside its body.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
/// Header timeout of a connection beyond the limit, which gets a single reply.
const SURPLUS_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// Shortest and longest interval between two checks of the timeouts.
const CHECK_INTERVALS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// State that all connections share.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) state: AppState,
    /// Time at which the server stopped accepting connections.
    pub(super) closing: watch::Sender<Option<Instant>>,
}

/// Class of a connection by the connection limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionClass {
    Regular,
    /// Beyond the limit: answered once, with a refusal unless it is a probe, and closed.
    Surplus,
}

/// A connection from one client.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<Activity>,
    pub(super) class: ConnectionClass,
    pub(super) peer: SocketAddr,
}

impl Connection {
    /// Serves requests until the connection ends or times out. Neither is an error.
    pub(super) async fn serve(self, tcp: TcpStream) {
        let limits = self.limits();
        let mut closing = self.shared.closing.subscribe();
        let builder = self.builder();
        let (activity, connection) = (Arc::clone(&self.activity), Arc::new(self));
        let io = TokioIo::new(Stream::new(tcp, Arc::clone(&activity)));
        let service = service_fn(|request| Arc::clone(&connection).answer(request));
        let mut http = pin!(builder.serve_connection(io, service));
        let mut checks = tokio::time::interval(check_interval(&limits));
        let mut close_at: Option<Instant> = None;
        loop {
            tokio::select! {
                // Bytes that have arrived are read before the timeouts are checked, even on a busy machine.
                biased;
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "connection failed");
                    }
                    return;
                }
                Ok(()) = closing.changed() => {
                    // HTTP/2 can tell the client which requests are still answered.
                    if activity.protocol() == Some(Protocol::Http2) {
                        http.as_mut().graceful_shutdown();
                    }
                }
                _ = checks.tick() => {
                    if close_at.is_some_and(|time| Instant::now() >= time) {
                        return;
                    }
                    let closing = *closing.borrow();
                    match activity.timeout(&limits, closing) {
                        None => {}
                        Some(ConnectionTimeout::Idle) => {
                            http.as_mut().graceful_shutdown();
                            close_at.get_or_insert_with(|| Instant::now() + limits.write_timeout);
                        }
                        Some(reason @ (ConnectionTimeout::Head | ConnectionTimeout::Reply)) => {
                            tracing::debug!(?reason, "connection is too slow");
                            return;
                        }
                    }
                }
            }
        }
    }

    fn limits(&self) -> ConnectionLimits {
        let limits = self.shared.state.config().connections;
        match self.class {
            ConnectionClass::Regular => limits,
            ConnectionClass::Surplus => {
                ConnectionLimits { header_timeout: limits.header_timeout.min(SURPLUS_HEADER_TIMEOUT), ..limits }
            }
        }
    }

    /// Configures hyper without its own timeouts: [`Activity`] covers both protocols, and the time before one is
    /// chosen.
    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        if self.class == ConnectionClass::Surplus {
            // HTTP/1 can close the connection with its single reply.
            builder = builder.http1_only();
        }
        let mut http1 = builder.http1();
        http1.timer(TokioTimer::new()).header_read_timeout(None);
        http1.max_buf_size(MAX_HEAD_BYTES as usize).max_headers(MAX_HEADERS);
        let mut http2 = builder.http2();
        http2.timer(TokioTimer::new()).max_header_list_size(MAX_HEAD_BYTES);
        http2.max_concurrent_streams(MAX_STREAMS).max_send_buf_size(MAX_SEND_BUFFER_BYTES);
        builder
    }

    /// Answers a request, which begins with this call and not when the future is first polled.
    fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<WatchedReply>, Infallible>> {
        let version = request.version();
        let protocol = if version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
        let guard = self.activity.begin_request(protocol);
        if version == Version::HTTP_10 && asks_to_keep_alive(request.headers()) {
            // A compressed reply has no length, without which this version has to close the connection.
            request.headers_mut().remove(header::ACCEPT_ENCODING);
        }
        async move {
            let mut response = self.respond(request).await;
            let is_last = self.class == ConnectionClass::Surplus || self.shared.state.phase() == Phase::Draining;
            let is_endless = version == Version::HTTP_10 && !has_length(&response);
            if protocol == Protocol::Http1 && (is_last || is_endless) {
                close_after(&mut response, version);
            }
            Ok(response.map(|body| WatchedReply::new(body, guard)))
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if self.class == ConnectionClass::Surplus && !observe::is_probe(request.uri().path()) {
            let refused = GuardError::TooManyConnections { limit: self.shared.state.config().connections.max };
            // This request does not pass the router's layers.
            self.shared.state.metrics().http.problem(refused.kind().slug);
            let mut response = refused.into_response();
            reply::add_default_headers(response.headers_mut(), false);
            return response;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.shared.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

/// True if the head of a request of HTTP/1.0 asks for a connection that stays open.
fn asks_to_keep_alive(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|option| option.trim().eq_ignore_ascii_case("keep-alive"))
}

/// True if the length of a reply is known before it is sent.
fn has_length(response: &Response<Body>) -> bool {
    response.headers().contains_key(header::CONTENT_LENGTH) || response.body().size_hint().exact().is_some()
}

/// Announces that the connection ends with this reply to a request of HTTP/1.
fn close_after(response: &mut Response<Body>, version: Version) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // To a client that asked for it, hyper would promise to keep the connection open in a reply of HTTP/1.1.
        *response.version_mut() = version;
    }
}

/// A quarter of the shortest timeout, within [`CHECK_INTERVALS`].
fn check_interval(limits: &ConnectionLimits) -> Duration {
    let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
    let [min, max] = CHECK_INTERVALS;
    (shortest / 4).clamp(min, max)
}
