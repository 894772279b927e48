//! The real server on a free port, with the real models, inside the test's own process.

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
use ndarray::ArrayD;
use ndarray_npy::ReadNpyExt;
use reqwest::multipart::{Form, Part};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The models that the project ships, or those of `DENSECL_MODELS`.
pub fn models() -> PathBuf {
    std::env::var_os("DENSECL_MODELS").map_or_else(|| crate::root().join("models/zoo"), PathBuf::from)
}

/// The settings of a test's server: the defaults, on a free port, but nothing is kept: tests that send one picture often
/// mean it to be computed often.
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

/// A server that answers, until it is stopped or dropped.
pub struct TestServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// To look at it from inside.
    pub state: AppState,
    /// To ask it.
    pub client: Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<Result<(), ServeError>>,
}

impl TestServer {
    /// Starts one with the default settings.
    pub async fn start() -> Self {
        Self::with(config()).await
    }

    /// Starts one and waits until it is ready.
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

    /// Tells it to stop, as a signal would.
    ///
    /// # Panics
    /// If it was told before.
    pub fn tell_to_stop(&mut self) {
        // A server that has ended by itself needs not be told.
        let _ = self.stop.take().expect("told once").send(());
    }

    /// Waits until it has stopped.
    ///
    /// # Errors
    /// How the server ended, if not well.
    ///
    /// # Panics
    /// If it panicked.
    pub async fn stopped(self) -> Result<(), ServeError> {
        self.running.await.expect("the server does not panic")
    }

    /// The value of a metric's line, 0 if it is not there.
    ///
    /// # Panics
    /// If there are no metrics.
    pub fn metric(&self, line: &str) -> f64 {
        let text = self.state.metrics().text().expect("metrics are text");
        let value = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// If it does not within 20 seconds.
    pub async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let poll = async {
            while !condition(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), poll).await.is_ok(), "waited for {what} in vain");
    }
}

/// A part with a file.
pub fn part(bytes: &[u8]) -> Part {
    Part::bytes(bytes.to_vec()).file_name("picture")
}

/// Sends a request that must succeed.
///
/// # Panics
/// With the problem, if it does not.
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
/// If it is not.
pub async fn json(request: RequestBuilder) -> Value {
    succeed(request).await.json().await.expect("JSON")
}

/// Sends a request whose reply is an npy file.
///
/// # Panics
/// If it is not.
pub async fn npy(request: RequestBuilder) -> ArrayD<f32> {
    let bytes = succeed(request).await.bytes().await.expect("a whole reply");
    ArrayD::<f32>::read_npy(Cursor::new(bytes)).expect("an npy file of float32")
}

/// A header's text.
///
/// # Panics
/// If it is not there.
pub fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name).unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()));
    value.to_str().expect("a header of text")
}

/// The largest difference of two tensors.
///
/// # Panics
/// If their shapes differ.
pub fn largest_difference(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}
