//! The server with the shipped models on a free port, in the process of the test.

use std::fmt::Display;
use std::io::Cursor;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use densecl_inference::batch::Batching;
use densecl_inference::onnx_runtime::{Device, EngineOptions, Precision};
use densecl_server::app::{Application, ServeError};
use densecl_server::cache::CacheSettings;
use densecl_server::config::{ClientRates, Config, ConnectionLimits, Drain, RequestLimits};
use densecl_server::http::AppState;
use densecl_server::metrics::MetricsFormat;
use ndarray::ArrayD;
use ndarray_npy::ReadNpyExt;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Folder of the models: `DENSECL_MODELS`, or the one that the project ships.
pub fn models() -> PathBuf {
    std::env::var_os("DENSECL_MODELS").map_or_else(|| crate::root().join("models/zoo"), PathBuf::from)
}

/// Settings of a test's server: the defaults on a free port, without the cache, as tests that repeat an image expect it
/// to be computed again.
pub fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin_listen: None,
        models: models(),
        warm_up: Vec::new(),
        engine: EngineOptions {
            library: Some(crate::onnxruntime()),
            device: Device::Cpu,
            threads: 2,
            engines: None,
            precision: Precision::Float32,
        },
        batching: Batching { max_batch: 8, max_wait: None, max_batch_pixels: None },
        limits: RequestLimits {
            max_side_px: 2048,
            max_body_bytes: 32 << 20,
            max_pixels: 50_000_000,
            max_response_bytes: 1 << 30,
            max_images: 32,
            max_points: 10_000,
            timeout: Duration::from_secs(30),
            max_in_flight: 64,
            memory_bytes: 2 << 30,
            body_timeout: Duration::from_secs(10),
        },
        connections: ConnectionLimits::default(),
        rates: ClientRates::default(),
        cache: CacheSettings::OFF,
        drain: Drain { delay: Duration::ZERO, timeout: Duration::from_secs(30) },
        api_keys: None,
        traces: None,
        cors_origins: Vec::new(),
    }
}

/// A running server, which ends when it is stopped or dropped.
pub struct TestServer {
    /// Address of the listener.
    pub address: SocketAddr,
    /// State of the server, for its metrics and phase.
    pub state: AppState,
    /// HTTP client.
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    /// Starts a server with the settings of [`config`].
    pub async fn start() -> Self {
        Self::with(config()).await
    }

    /// Starts a server and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn with(config: Config) -> Self {
        let application = Application::bind(config).await.expect("a free port");
        let (address, state) = (application.address(), application.state().clone());
        let (stop, stopped) = oneshot::channel();
        let mut running = tokio::spawn(application.run_until(async {
            let _ = stopped.await;
        }));
        tokio::select! {
            () = Application::ready(&state) => {}
            ended = &mut running => panic!("the server ended before it was ready: {ended:?}"),
        }
        Self { address, state, client: Client::new(), stop: Some(stop), running }
    }

    /// The URL of a path.
    pub fn url(&self, path: impl Display) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Begins a `GET`.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    /// Begins a `POST /features` of a raw body.
    pub fn features(&self, image: impl Into<Vec<u8>>, query: &[(&str, &str)]) -> RequestBuilder {
        let request = self.client.post(self.url("/features")).query(query);
        request.header("Content-Type", "application/octet-stream").body(image.into())
    }

    /// Begins a `POST /correspondence`.
    pub fn correspondence(&self, source: &[u8], target: &[u8], fields: &[(&str, &str)]) -> RequestBuilder {
        let mut form = Form::new().part("source", part(source)).part("target", part(target));
        for (name, value) in fields {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        self.client.post(self.url("/correspondence")).multipart(form)
    }

    /// Tells the server to stop, as a signal does.
    ///
    /// # Panics
    /// If it is called twice.
    pub fn tell_to_stop(&mut self) {
        // Fails if the server has ended already.
        let _ = self.stop.take().expect("told once").send(());
    }

    /// Waits until the server has stopped.
    ///
    /// # Errors
    /// The error of [`Application::run_until`].
    ///
    /// # Panics
    /// If the server panicked.
    pub async fn stopped(self) -> Result<(), ServeError> {
        self.running.await.expect("the server does not panic")
    }

    /// Value of a metric's line, 0 if there is no such line.
    ///
    /// # Panics
    /// If there are no metrics.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.state.metrics().text(MetricsFormat::OpenMetrics).expect("metrics are text");
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Begins a raw `POST /features` of `length` bytes, and returns once the handler waits for the body: it answers
    /// `Expect: 100-continue` when it starts to read.
    ///
    /// # Panics
    /// If the server does not ask for the body.
    pub async fn begin_upload(&self, query: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("the server listens");
        let head = format!(
            "POST /features{query} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nExpect: 100-continue\r\n\
             Content-Type: image/png\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let mut interim = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
        stream.read_exact(&mut interim).await.expect("an interim reply");
        assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
        stream
    }
}

/// A part of a form with a file.
pub fn part(bytes: &[u8]) -> Part {
    Part::bytes(bytes.to_vec()).file_name("picture")
}

/// Sends a request that must succeed.
///
/// # Panics
/// If it fails, with the problem.
pub async fn succeed(request: RequestBuilder) -> Response {
    let response = request.send().await.expect("the server answers");
    match response.status() {
        status if status.is_success() => response,
        status => panic!("{status}: {}", response.text().await.unwrap_or_default()),
    }
}

/// Sends a request whose reply is JSON.
///
/// # Panics
/// If it fails, or the reply is not JSON.
pub async fn json(request: RequestBuilder) -> Value {
    succeed(request).await.json().await.expect("JSON")
}

/// Sends a request whose reply is an npy file.
///
/// # Panics
/// If it fails, or the reply is not an npy file.
pub async fn npy(request: RequestBuilder) -> ArrayD<f32> {
    let bytes = succeed(request).await.bytes().await.expect("a whole reply");
    ArrayD::<f32>::read_npy(Cursor::new(bytes)).expect("an npy file of float32")
}

/// Text of a header.
///
/// # Panics
/// If the header is missing.
pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name).unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()));
    value.to_str().expect("a header of text")
}

/// The largest absolute difference of two tensors.
///
/// # Panics
/// If their shapes differ.
pub fn largest_difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
