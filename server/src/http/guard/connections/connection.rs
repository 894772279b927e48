//! One connection: HTTP/1.1 or HTTP/2 on it, until it ends or is too slow.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, Version, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use super::activity::{Activity, Overdue, Protocol};
use super::stream::Stream;
use super::watched_reply::WatchedReply;
use crate::config::ConnectionLimits;
use crate::http::guard::error::GuardError;
use crate::http::problem::ToProblem as _;
use crate::http::state::{AppState, Phase};
use crate::http::{observe, reply};

/// Bytes of a request's head.
const MAX_HEAD_BYTES: u32 = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 100;
/// What an HTTP/2 reply may have in memory beside its body.
const MAX_SEND_BUFFER_BYTES: usize = 64 << 10;
/// For a connection that is there only to be told that there are too many.
const SURPLUS_HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection's slowness is looked at: a quarter of what it may take, within these.
const CHECKS: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

/// What all connections share.
pub(super) struct Shared {
    pub(super) router: Router,
    pub(super) state: AppState,
    /// When the server closed its door.
    pub(super) closing: watch::Sender<Option<Instant>>,
}

/// Whether a connection is one of those that there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Regular,
    /// There are too many: it is told so, and closed.
    Surplus,
}

/// A connection from one client.
pub(super) struct Connection {
    pub(super) shared: Arc<Shared>,
    pub(super) activity: Arc<Activity>,
    pub(super) standing: Standing,
    pub(super) peer: SocketAddr,
}

impl Connection {
    /// Serves requests until the connection ends, or has to. That is no error: clients go when
    /// they like.
    pub(super) async fn serve(self, tcp: TcpStream) {
        let limits = self.limits();
        let mut closing = self.shared.closing.subscribe();
        let builder = self.builder();
        let (activity, connection) = (Arc::clone(&self.activity), Arc::new(self));
        let io = TokioIo::new(Stream::new(tcp, Arc::clone(&activity)));
        let service = service_fn(|request| Arc::clone(&connection).answer(request));
        let mut http = pin!(builder.serve_connection(io, service));
        let mut checks = tokio::time::interval(check_interval(&limits));
        let mut leave_by: Option<Instant> = None;
        loop {
            tokio::select! {
                // What has arrived is read before it is judged late, however busy the machine.
                biased;
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error, "connection failed");
                    }
                    return;
                }
                Ok(()) = closing.changed() => {
                    // This protocol can say which requests are still answered.
                    if activity.protocol() == Some(Protocol::Http2) {
                        http.as_mut().graceful_shutdown();
                    }
                }
                _ = checks.tick() => {
                    if leave_by.is_some_and(|time| Instant::now() >= time) {
                        return;
                    }
                    let closing = *closing.borrow();
                    match activity.overdue(&limits, closing) {
                        None => {}
                        Some(Overdue::Idle) => {
                            http.as_mut().graceful_shutdown();
                            leave_by.get_or_insert_with(|| Instant::now() + limits.write_timeout);
                        }
                        Some(reason @ (Overdue::Head | Overdue::Reply)) => {
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
        match self.standing {
            Standing::Regular => limits,
            Standing::Surplus => {
                ConnectionLimits { header_timeout: limits.header_timeout.min(SURPLUS_HEADER_TIMEOUT), ..limits }
            }
        }
    }

    /// Timeouts are left to [`Activity`], which sees both protocols, and the time before one is
    /// chosen.
    fn builder(&self) -> Builder<TokioExecutor> {
        let mut builder = Builder::new(TokioExecutor::new());
        if self.standing == Standing::Surplus {
            // One reply that closes the connection.
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

    /// Begins with the head's arrival, before the future is first polled.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<WatchedReply>, Infallible>> {
        let version = request.version();
        let protocol = if version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
        let under_way = self.activity.begin_request(protocol);
        async move {
            let mut response = self.respond(request).await;
            let last = self.standing == Standing::Surplus || self.shared.state.phase() == Phase::Draining;
            if last && protocol == Protocol::Http1 {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response.map(|body| WatchedReply::new(body, under_way)))
        }
    }

    async fn respond(&self, request: Request<Incoming>) -> Response<Body> {
        if self.standing == Standing::Surplus && !observe::is_probe(request.uri().path()) {
            let refused = GuardError::TooManyConnections { limit: self.shared.state.config().connections.max };
            // Nobody else sees this request.
            self.shared.state.metrics().http.problem(refused.kind().slug);
            let mut response = refused.into_response();
            reply::add(response.headers_mut(), false);
            return response;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.shared.router.clone().oneshot(request).await.unwrap_or_else(|never| match never {})
    }
}

fn check_interval(limits: &ConnectionLimits) -> Duration {
    let shortest = limits.header_timeout.min(limits.idle_timeout).min(limits.write_timeout);
    let [least, most] = CHECKS;
    (shortest / 4).clamp(least, most)
}
