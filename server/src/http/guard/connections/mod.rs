//! Listener: accepts connections, limits each of them, and closes without losing a request.
//!
//! The limits are the number of connections ([`ConnectionLimits::max`]), the time for the head of a request, between
//! requests and to take a reply (`activity`), and the size of a head (`connection`). The time for a *body* is limited
//! by the handler that reads it.
//!
//! [`ConnectionLimits::max`]: crate::config::ConnectionLimits::max

mod activity;
mod connection;
mod stream;
mod watched_reply;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use self::activity::Activity;
use self::connection::{Connection, ConnectionClass, Shared};
use crate::http::state::AppState;

/// Connections beyond the limit that are accepted for one request each: probes are answered, all others are told the
/// reason. Further connections wait in the operating system's queue.
const SURPLUS: usize = 64;
/// Pause after a failed accept, for example when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that had not ended when the drain timeout passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Connections that had such a request.
    pub(crate) connections: usize,
}

/// The clients that a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerRole {
    /// All clients.
    Main,
    /// Administrators.
    Administration,
}

/// Serves the connections of `listener` until `close` resolves. Then accepts those that the operating system has
/// already completed, and finishes all requests.
///
/// # Errors
/// [`Unfinished`] if that takes longer than the drain timeout.
pub(crate) async fn serve(
    listener: TcpListener,
    role: ListenerRole,
    (router, state): (Router, AppState),
    close: impl Future<Output = ()>,
) -> Result<(), Unfinished> {
    let drain_timeout = state.config().drain.timeout;
    let mut connections = OpenConnections::new(role, router, state);
    connections.accept_until(&listener, close).await;
    if let Err(error) = connections.accept_waiting(listener) {
        tracing::warn!(%error, "connections that were waiting may be lost");
    }
    connections.shared.closing.send_replace(Some(Instant::now()));
    match tokio::time::timeout(drain_timeout, connections.wait_until_closed()).await {
        Ok(()) => Ok(()),
        Err(_) => connections.unfinished(),
    }
}

/// The open connections of a listener.
struct OpenConnections {
    role: ListenerRole,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    open: HashMap<Id, Arc<Activity>>,
}

impl OpenConnections {
    fn new(role: ListenerRole, router: Router, state: AppState) -> Self {
        let shared = Shared { router, state, closing: watch::Sender::new(None) };
        Self { role, shared: Arc::new(shared), tasks: JoinSet::new(), open: HashMap::new() }
    }

    async fn accept_until(&mut self, listener: &TcpListener, close: impl Future<Output = ()>) {
        let max = self.max();
        let mut close = std::pin::pin!(close);
        let mut failing = false;
        loop {
            tokio::select! {
                accepted = listener.accept(), if self.open.len() < max + SURPLUS => match accepted {
                    Ok((tcp, peer)) => {
                        failing = false;
                        self.start(tcp, peer);
                    }
                    Err(error) if is_about_one_connection(&error) => {}
                    Err(error) => {
                        // The connection stays in the operating system's queue until another one ends.
                        if !failing {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => self.remove(ended),
                () = &mut close => return,
            }
        }
    }

    /// Accepts the connections that the operating system has completed, and closes the listener. Tokio's cached
    /// readiness may be older than the newest connection, so the socket is polled directly.
    fn accept_waiting(&mut self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((tcp, peer)) => {
                    tcp.set_nonblocking(true)?;
                    self.start(tokio::net::TcpStream::from_std(tcp)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn start(&mut self, tcp: tokio::net::TcpStream, peer: SocketAddr) {
        // A small reply must not wait for the acknowledgement of the one before. The connection works without, too.
        let _ = tcp.set_nodelay(true);
        let class = if self.open.len() < self.max() { ConnectionClass::Regular } else { ConnectionClass::Surplus };
        let activity = Activity::new();
        let shared = Arc::clone(&self.shared);
        let connection = Connection { shared, activity: Arc::clone(&activity), class, peer };
        let task = self.tasks.spawn(connection.serve(tcp));
        self.open.insert(task.id(), activity);
        self.update_metrics();
    }

    fn remove(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                // Tasks are cancelled where the process ends because it could not load its models.
                if error.is_panic() {
                    tracing::error!(%error, "a connection panicked");
                }
                error.id()
            }
        };
        self.open.remove(&id);
        self.update_metrics();
    }

    async fn wait_until_closed(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.remove(ended);
        }
    }

    fn unfinished(&self) -> Result<(), Unfinished> {
        let connections = self.open.values().filter(|activity| activity.is_busy()).count();
        if connections == 0 { Ok(()) } else { Err(Unfinished { connections }) }
    }

    fn max(&self) -> usize {
        self.shared.state.config().connections.max
    }

    fn update_metrics(&self) {
        if self.role == ListenerRole::Main {
            self.shared.state.metrics().http.set_connections(self.open.len());
        }
    }
}

/// True if accepting failed because of that one connection.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
