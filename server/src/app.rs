//! The server as a whole: from settings to a listener that answers, and back to silence.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::batch::{Batcher, StartError};
use crate::config::Config;
use crate::http::{AppState, Phase, StateError, router};
use crate::registry::{OpenError, Registry};

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
    /// The listener failed.
    #[error("the listener failed")]
    Accept(#[source] io::Error),
    /// Requests were still under way when the time to drain was over.
    #[error("requests were still under way {} s after the door was closed", timeout.as_secs_f32())]
    DrainTimeout {
        /// The time they had.
        timeout: Duration,
    },
}

impl Application {
    /// Takes the address. From now on connections wait to be answered.
    ///
    /// # Errors
    /// If the address cannot be listened on, or threads cannot be started.
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let listen = config.listen;
        let unavailable = |source| ServeError::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(unavailable)?;
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
        let server = axum::serve(listener, router(state.clone())).with_graceful_shutdown(async {
            // A sender that is gone closes the door as well.
            let _ = closed.await;
        });
        let mut server = tokio::spawn(server.into_future());

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
                ended = &mut server => return accept_result(ended),
            }
        }

        let drain = state.config().drain;
        state.begin_draining();
        tracing::info!(delay_s = drain.delay.as_secs_f32(), "draining");
        tokio::time::sleep(drain.delay).await;
        drop(close);
        match tokio::time::timeout(drain.timeout, server).await {
            Ok(ended) => accept_result(ended),
            Err(_) => Err(ServeError::DrainTimeout { timeout: drain.timeout }),
        }
    }

    /// Resolves when the server has become ready, or is past it.
    pub async fn ready(state: &AppState) {
        // The sender lives in the state, so the wait cannot fail.
        let _ = state.watch_phase().wait_for(|phase| *phase != Phase::Loading).await;
    }
}

/// Reads and warms up the models, and makes `state` ready. This blocks.
///
/// # Errors
/// If the engine does not start or a model cannot be loaded.
pub fn load(state: &AppState) -> Result<(), ServeError> {
    let config = state.config();
    let batcher = Batcher::start(&config.batcher(), &state.metrics().batch)?;
    let registry = Registry::open(&config.models, batcher)?;
    let models = registry.all().count();
    tracing::info!(models, providers = ?registry.providers(), "ready");
    state.become_ready(registry);
    Ok(())
}

fn accept_result(ended: Result<io::Result<()>, tokio::task::JoinError>) -> Result<(), ServeError> {
    let ended = ended.map_err(io::Error::other).and_then(|result| result);
    ended.map_err(ServeError::Accept)?;
    tracing::info!("stopped");
    Ok(())
}
