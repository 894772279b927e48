//! The listener's side: accepts connections, bounds what each may cost, and closes without losing a request.
//!
//! A connection is bounded in number ([`ConnectionLimits::max`]), in the time that it may take for
//! the head of a request, between requests, and to take a reply (`activity`), and in the size of
//! a head (`connection`). How long a *body* may take is a request's own business: its handler
//! waits for it.
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
use self::connection::{Connection, Shared, Standing};
use crate::http::state::AppState;

/// Connections beyond the limit that are let in for one request each: probes must get through,
/// and everyone else should learn why not. Any more wait in the operating system's queue.
const SURPLUS: usize = 64;
/// How long to wait when the operating system has nothing left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Requests that were still under way when the time to finish them was over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Connections that had such a request.
    pub(crate) connections: usize,
}

/// The clients that a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenerRole {
    /// Everybody.
    Main,
    /// Those who run the server.
    Administration,
}

/// Serves the connections that `listener` gets until `close` resolves. Then takes those that the
/// operating system has already completed, and finishes what has begun.
///
/// # Errors
/// If that takes longer than the drain timeout.
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
    match tokio::time::timeout(drain_timeout, connections.emptied()).await {
        Ok(()) => Ok(()),
        Err(_) => connections.unfinished(),
    }
}

/// The connections that are open.
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
                        self.enter(tcp, peer);
                    }
                    Err(error) if is_about_one_connection(&error) => {}
                    Err(error) => {
                        // Nothing is lost: the connection waits, and another one will end.
                        if !failing {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        failing = true;
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(ended) = self.tasks.join_next_with_id() => self.leave(ended),
                () = &mut close => return,
            }
        }
    }

    /// Takes the connections that the operating system holds for us, and closes the listener. Its
    /// own readiness would not do: it may be older than the newest connection.
    fn accept_waiting(&mut self, listener: TcpListener) -> io::Result<()> {
        let listener = listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((tcp, peer)) => {
                    tcp.set_nonblocking(true)?;
                    self.enter(tokio::net::TcpStream::from_std(tcp)?, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_about_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn enter(&mut self, tcp: tokio::net::TcpStream, peer: SocketAddr) {
        // A small reply must not wait for the acknowledgement of the one before. Not worth losing
        // the connection for.
        let _ = tcp.set_nodelay(true);
        let standing = if self.open.len() < self.max() { Standing::Regular } else { Standing::Surplus };
        let activity = Activity::new();
        let shared = Arc::clone(&self.shared);
        let connection = Connection { shared, activity: Arc::clone(&activity), standing, peer };
        let task = self.tasks.spawn(connection.serve(tcp));
        self.open.insert(task.id(), activity);
        self.count();
    }

    fn leave(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = match ended {
            Ok((id, ())) => id,
            Err(error) => {
                tracing::error!(%error, "a connection panicked");
                error.id()
            }
        };
        self.open.remove(&id);
        self.count();
    }

    async fn emptied(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            self.leave(ended);
        }
    }

    fn unfinished(&self) -> Result<(), Unfinished> {
        let connections = self.open.values().filter(|activity| activity.is_busy()).count();
        if connections == 0 { Ok(()) } else { Err(Unfinished { connections }) }
    }

    fn max(&self) -> usize {
        self.shared.state.config().connections.max
    }

    fn count(&self) {
        if self.role == ListenerRole::Main {
            self.shared.state.metrics().http.set_connections(self.open.len());
        }
    }
}

/// Accepting failed for a reason that ended with that one connection.
fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
