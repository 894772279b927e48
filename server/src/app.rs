//! The application: binds the listeners, loads the models, serves, and drains when it is told to stop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::config::Config;
use crate::http::{AppState, ListenerRole, Phase, StateError, Unfinished, admin_router, router, serve};
use densecl_inference::backend::Provider;
use densecl_inference::batch::{Batcher, StartError};
use densecl_inference::onnx_runtime::library_commit;
use densecl_inference::registry::{ModelLoader, OpenError};

/// Connections that the operating system holds until they are accepted. Clients beyond retry after a second.
const BACKLOG: u32 = 1024;

/// A server that listens but does not answer yet.
pub struct Application {
    main: BoundListener,
    administration: Option<BoundListener>,
    state: AppState,
}

/// A listener and its address.
struct BoundListener {
    listener: TcpListener,
    address: SocketAddr,
}

impl BoundListener {
    fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let unavailable = |source| ServeError::Listen { address, source };
        let listener = listen_on(address).map_err(unavailable)?;
        Ok(Self { address: listener.local_addr().map_err(unavailable)?, listener })
    }
}

/// A server that did not start, or did not end as it should.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Error of the operating system.
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
    /// Binds the addresses. From now on connections wait to be answered.
    ///
    /// # Errors
    /// If the address cannot be listened on, or threads cannot be started.
    #[expect(clippy::unused_async, reason = "listening needs the runtime that it is called in")]
    pub async fn bind(config: Config) -> Result<Self, ServeError> {
        let main = BoundListener::bind(config.listen)?;
        let administration = config.admin_listen.map(BoundListener::bind).transpose()?;
        Ok(Self { main, administration, state: AppState::new(config)? })
    }

    /// Address of the main listener, with the actual port if 0 was configured.
    pub fn address(&self) -> SocketAddr {
        self.main.address
    }

    /// Address of the listener for administrators.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.administration.as_ref().map(|listener| listener.address)
    }

    /// State that the requests share, to observe the server.
    pub fn state(&self) -> &AppState {
        &self.state
    }

    /// Answers probes while the models load, then all requests until `stop` resolves. Then drains: `/readyz` fails,
    /// after a delay no more connections are accepted, and requests that have begun are finished.
    ///
    /// # Errors
    /// If the models cannot be loaded, the listener fails, or draining takes too long.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { main, administration, state } = self;
        tracing::info!(address = %main.address, "listening");
        if let Some(listener) = &administration {
            tracing::info!(address = %listener.address, "listening to administrators");
        }
        // Dropping the sender closes both listeners.
        let (close, closed) = watch::channel(());
        let mut server = tokio::spawn(serve_both(main, administration, state.clone(), closed));

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
                // The server ends by itself only if it panics.
                ended = &mut server => return finish_serving(&state, ended),
            }
        }

        let drain = state.config().drain;
        state.begin_draining();
        tracing::info!(delay_s = drain.delay.as_secs_f32(), "draining");
        tokio::time::sleep(drain.delay).await;
        drop(close);
        finish_serving(&state, server.await)
    }

    /// Resolves when the server is ready or already draining.
    pub async fn ready(state: &AppState) {
        // The sender lives in the state, so the wait cannot fail.
        let _ = state.watch_phase().wait_for(|phase| *phase != Phase::Loading).await;
    }
}

/// Serves both listeners until `closed`, then finishes their requests.
async fn serve_both(
    main: BoundListener,
    administration: Option<BoundListener>,
    state: AppState,
    closed: watch::Receiver<()>,
) -> Result<(), Unfinished> {
    let closed = || {
        let mut closed = closed.clone();
        async move {
            // Resolves when the sender is dropped.
            while closed.changed().await.is_ok() {}
        }
    };
    let administration = async {
        let Some(bound) = administration else { return Ok(()) };
        serve(bound.listener, ListenerRole::Administration, (admin_router(state.clone()), state.clone()), closed())
            .await
    };
    let main = serve(main.listener, ListenerRole::Main, (router(state.clone()), state.clone()), closed());
    let (main, administration) = tokio::join!(main, administration);
    main.and(administration)
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restarted server can bind while connections of the one before are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Reads and warms up the models, and makes `state` ready. Blocks.
///
/// # Errors
/// If the engine does not start or a model cannot be loaded.
pub fn load(state: &AppState) -> Result<(), ServeError> {
    let config = state.config();
    let batcher = Batcher::start(&config.batcher(), &state.metrics().batch)?;
    record_engines(state, batcher.providers());
    let models = ModelLoader::open(config.models.clone(), batcher, config.warm_up.clone())?;
    let registry = models.current();
    state.become_ready(models);
    tracing::info!(models = registry.all().count(), providers = ?registry.providers(), "ready");
    Ok(())
}

/// Records the engines in the metrics.
fn record_engines(state: &AppState, providers: &[Provider]) {
    state.metrics().build.set_engines(library_commit(), providers.iter().map(Provider::to_string).collect());
    if providers.iter().any(|provider| matches!(provider, Provider::Cuda(_))) {
        state.metrics().gpu.start();
    }
}

/// Reads the API keys and the model repository again. If one cannot be read, it stays as it was and the reason is
/// logged; the server goes on.
pub async fn reload(state: &AppState) {
    let with_keys = state.clone();
    if let Err(error) = tokio::task::spawn_blocking(move || with_keys.reload_api_keys()).await {
        tracing::error!(%error, "reading the API keys panicked");
    }
    Application::ready(state).await;
    let state = state.clone();
    let rescan = tokio::task::spawn_blocking(move || {
        let Ok(models) = state.service().models() else { return };
        // `rescan` logs its failures.
        if let Ok(changes) = models.rescan() {
            let (loaded, unloaded, failed) = (changes.loaded.len(), changes.unloaded.len(), changes.failed.len());
            tracing::info!(loaded, unloaded, failed, "looked at the model repository");
        }
    });
    if let Err(error) = rescan.await {
        tracing::error!(%error, "looking at the model repository panicked");
    }
}

fn finish_serving(
    state: &AppState,
    ended: Result<Result<(), Unfinished>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    let timeout = state.config().drain.timeout;
    let finished = ended.map_err(ServeError::AcceptPanicked)?;
    finished.map_err(|Unfinished { connections }| ServeError::DrainTimeout { connections, timeout })?;
    tracing::info!("stopped");
    Ok(())
}
