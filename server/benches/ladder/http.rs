//! The rung over HTTP: the whole server, with clients on other threads.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use axum::body::Bytes;
use densecl_server::app::{Application, ServeError};
use densecl_server::http::AppState;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::Task;
use crate::report::Sample;

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The server on its own thread, run as by `main`.
pub(crate) struct HttpServer {
    address: SocketAddr,
    state: AppState,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), ServeError>>,
}

impl HttpServer {
    pub(crate) fn start(task: &Task) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(task.config.engine.threads.clamp(1, 8))
            .enable_all()
            .build()?;
        let application = runtime.block_on(Application::bind(task.config.clone()))?;
        let (address, state) = (application.address(), application.state().clone());
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            runtime.block_on(application.run_until(async {
                let _ = stopped.await;
            }))
        });
        let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        waiting.block_on(Application::ready(&state));
        Ok(Self { address, state, stop, thread })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn state(&self) -> &AppState {
        &self.state
    }

    pub(crate) fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(());
        self.thread.join().expect("the server does not panic").context("the server failed")
    }
}

/// A connection that is kept alive.
pub(crate) struct Client(SendRequest<Full<Bytes>>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// True if another request can be sent.
    pub(crate) fn is_usable(&self) -> bool {
        !self.0.is_closed()
    }

    /// Sends the `index`-th request and reads the whole reply.
    pub(crate) async fn ask(&mut self, task: &Task, index: usize) -> anyhow::Result<StatusCode> {
        let request = Request::post(task.path_and_query())
            .header("host", "localhost")
            .header("content-type", "image/jpeg")
            .body(Full::new(task.inputs.file(index).clone()))?;
        let response = self.0.send_request(request).await?;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(status)
    }
}

/// Runs `clients` that each send a request, wait for its reply, and send the next.
pub(crate) fn closed_loop(address: SocketAddr, task: &Task, clients: usize, time: Duration) -> anyhow::Result<Sample> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(Client::connect(address).await?);
        }
        let begun = Instant::now();
        let mut running = tokio::task::JoinSet::new();
        for (number, mut client) in connected.into_iter().enumerate() {
            let task = task.clone();
            running.spawn(async move {
                let mut latencies = Vec::new();
                while begun.elapsed() < time {
                    let start = Instant::now();
                    match client.ask(&task, number + latencies.len()).await? {
                        StatusCode::OK => latencies.push(start.elapsed()),
                        // Refused clients retry after the time of `Retry-After`.
                        StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(RETRY_AFTER).await,
                        status => bail!("the server answered {status}"),
                    }
                }
                Ok(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(ended) = running.join_next().await {
            latencies.extend(ended??);
        }
        Ok(Sample::new(latencies.len(), begun.elapsed(), latencies))
    })
}
