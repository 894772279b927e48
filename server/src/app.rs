//! The server as a whole: from settings to a listener that answers, and back to silence.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use crate::batch::{Batcher, StartError};
use crate::config::Config;
use crate::engine::{self, Provider};
use crate::http::{AppState, Phase, StateError, Unfinished, serve};
use crate::registry::{OpenError, Registry};

/// Connections that the operating system holds until they are accepted. Of a burst that is larger
/// the rest try again, a second later.
const BACKLOG: u32 = 1024;

/// A server that listens but does not answer yet.
pub struct Application {
    listener: TcpListener,
    address: SocketAddr,
    state: AppState,
}

/// Why a server did not start, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Threads cannot be started.
    #[error(transparent)]
    State(#[from] StateError),
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] StartError),
    /// The models cannot be loaded.
    #[error(transparent)]
    Models(#[from] OpenError),
    /// Loading ended in a panic.
    #[error("loading the models panicked")]
    LoadPanicked(#[source] tokio::task::JoinError),
    /// Accepting connections ended in a panic.
    #[error("accepting connections panicked")]
    AcceptPanicked(#[source] tokio::task::JoinError),
    /// Requests were still under way when the time to drain was over.
    #[error("{connections} connections had requests under way {} s after the door was closed", timeout.as_secs_f32())]
    DrainTimeout {
        /// Connections with such a request.
        connections: usize,
        /// The time they had.
        timeout: Duration,
    },
}

impl Application {
    /// Takes the address. From now on connections wait to be answered.
    ///
    /// # Errors
    /// If the address cannot be listened on, or threads cannot be started.
    #[expect(clippy::unused_async, reason = "listening needs the runtime that it is called in")]
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let listen = config.listen;
        let unavailable = |source| ServeError::Listen { address: listen, source };
        let listener = listen_on(listen).map_err(unavailable)?;
        let address = listener.local_addr().map_err(unavailable)?;
        Ok(Self { listener, address, state: AppState::new(config)? })
    }

    /// The address it listens on; its port is known even if 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the requests share, to watch the server from outside.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Loads the models while answering probes, then answers everything until `stop` resolves;
    /// then drains: `/readyz` fails, after a delay no more connections are taken, and what has
    /// begun is finished.
    ///
    /// # Errors
    /// If the models cannot be loaded, the listener fails, or draining takes too long.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { listener, address, state } = self;
        tracing::info!(%address, "listening");
        let (close, closed) = oneshot::channel::<()>();
        let mut server = tokio::spawn(serve(listener, state.clone(), async {
            // A sender that is gone closes the door as well.
            let _ = closed.await;
        }));

        let loading = tokio::task::spawn_blocking({
            let state = state.clone();
            move || load(&state)
        });
        let mut stop = std::pin::pin!(stop);
        let stopped = tokio::select! {
            loaded = loading => {
                loaded.map_err(ServeError::LoadPanicked)??;
                false
            }
            () = &mut stop => true,
        };
        if stopped {
            // The state becomes ready a moment before the loading thread ends: requests may have
            // begun by now.
            if state.phase() == Phase::Loading {
                return Ok(());
            }
        } else {
            tokio::select! {
                () = &mut stop => {}
                // It ends by itself only if it panics.
                ended = &mut server => return end(&state, ended),
            }
        }

        let drain = state.config().drain;
        state.begin_draining();
        tracing::info!(delay_s = drain.delay.as_secs_f32(), "draining");
        tokio::time::sleep(drain.delay).await;
        drop(close);
        end(&state, server.await)
    }

    /// Resolves when the server has become ready, or is past it.
    pub async fn ready(state: &AppState) {
        // The sender lives in the state, so the wait cannot fail.
        let _ = state.watch_phase().wait_for(|phase| *phase != Phase::Loading).await;
    }
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that is started again need not wait for connections of the one before.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Reads and warms up the models, and makes `state` ready. This blocks.
///
/// # Errors
/// If the engine does not start or a model cannot be loaded.
pub fn load(state: &AppState) -> Result<(), ServeError> {
    let config = state.config();
    let batcher = Batcher::start(&config.batcher(), &state.metrics().batch)?;
    note_engines(state, batcher.providers());
    let registry = Registry::open(&config.models, batcher, &config.rehearsals)?;
    let models = registry.all().count();
    tracing::info!(models, providers = ?registry.providers(), "ready");
    state.become_ready(registry);
    Ok(())
}

/// What runs models, for the metrics.
fn note_engines(state: &AppState, providers: &[Provider]) {
    state.metrics().build.engines(engine::library_commit(), providers.iter().map(Provider::to_string).collect());
    if providers.iter().any(|provider| matches!(provider, Provider::Cuda(_))) {
        state.metrics().gpu.watch();
    }
}

fn end(state: &AppState, ended: Result<Result<(), Unfinished>, tokio::task::JoinError>) -> Result<(), ServeError> {
    let timeout = state.config().drain.timeout;
    let finished = ended.map_err(ServeError::AcceptPanicked)?;
    finished.map_err(|Unfinished { connections }| ServeError::DrainTimeout { connections, timeout })?;
    tracing::info!("stopped");
    Ok(())
}
