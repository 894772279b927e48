//! Collects requests into batches and runs them on engines.
//!
//! [`Batcher::submit`] puts a request into a bounded queue; engines take batches of equal model, layers and image size
//! out of it. Every request that was accepted is answered exactly once, unless its caller has gone. A panic inside a run
//! fails that batch alone.
//!
//! It neither decodes nor resizes, and knows neither HTTP nor ONNX Runtime: an engine is any [`Backend`] with a thread of
//! its own. Invariant: no lock is held during a run.

mod engine_command;
pub mod forecast;
mod panics;
pub mod policy;
mod queue;
mod warm_up;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use densecl_models::geometry::ImageSize;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::engine_command::{EngineCommand, WarmUpRun};
pub use self::policy::BatchPolicy;
use self::queue::Queue;
pub use self::queue::QueueLimits;
use self::worker::Worker;
pub use crate::backend::LayerOutput;
use crate::backend::{Backend, BackendError, BackendModel, LayerSet, ModelId, Provider};
use crate::metrics::InferenceMetrics;
use crate::model_file::ModelFile;
use crate::onnx_runtime::{EngineOptions, OnnxRuntimeBackend, OnnxRuntimeError};

/// On a CPU a batch pays only where reading the weights takes most of the time: for small images. Measured with a
/// ResNet-18, a run of this many pixels does 10 % more images per second at 64 px and 13 % more at 128 px; four images of
/// 224 px would gain 5 % and take four times as long.
const CPU_BATCH_PIXELS: u64 = 1 << 16;
/// How long an image waits for others of its size where batches pay.
const GPU_MAX_WAIT: Duration = Duration::from_millis(2);

/// One image whose layers are to be computed.
#[derive(Clone, Debug)]
pub struct BatchRequest<M = ModelFile> {
    /// The model to run.
    pub model: M,
    /// The layers to compute.
    pub layers: LayerSet,
    /// Height of the image, in pixels.
    pub height: usize,
    /// Width of the image, in pixels.
    pub width: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// The time after which the answer is of no use.
    pub deadline: Instant,
}

impl<M: BackendModel> BatchRequest<M> {
    fn pixels(&self) -> u64 {
        self.height as u64 * self.width as u64
    }

    /// The key that requests must have in common to share a batch.
    fn kind(&self) -> (ModelId, &LayerSet, usize, usize) {
        (self.model.id(), &self.layers, self.height, self.width)
    }
}

/// The answer to a [`BatchRequest`].
#[derive(Clone, Debug)]
pub struct BatchReply {
    /// One per layer, in the order that was asked for.
    pub layers: Vec<LayerOutput>,
    /// Time spent in the queue.
    pub queued: Duration,
    /// Time of the run that it was part of.
    pub inference: Duration,
}

/// Why a request was not answered with layers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BatchError {
    /// The queue has no room, or is too long for the request's deadline.
    #[error("too much work waits already")]
    Overloaded {
        /// When there may be room again.
        retry_after: Duration,
    },
    /// The deadline passed before the request's turn came, or would pass before its end.
    #[error("the deadline passed in the queue")]
    DeadlinePassed,
    /// The engines are shutting down.
    #[error("the engines have shut down")]
    Closed,
    /// The backend failed.
    #[error(transparent)]
    Backend(Arc<BackendError>),
    /// The run ended in a panic. The engine starts afresh with the next batch.
    #[error("the engine panicked: {0}")]
    Panicked(Arc<str>),
}

/// Bounds of a batch; `None` stands for what suits the device.
#[derive(Clone, Copy, Debug)]
pub struct Batching {
    /// Images per run.
    pub max_batch: usize,
    /// How long an image waits for others of its size. By default not at all on a CPU, where a
    /// batch gains little.
    pub max_wait: Option<Duration>,
    /// Pixels per run; a single larger image still runs, alone.
    pub max_batch_pixels: Option<u64>,
}

impl Batching {
    /// One image at a time, at once.
    pub const NONE: Self = Self { max_batch: 1, max_wait: Some(Duration::ZERO), max_batch_pixels: None };

    fn policy(self, provider: Provider, limits: QueueLimits) -> BatchPolicy {
        let (max_wait, max_batch_pixels) = match provider {
            Provider::Cpu => (Duration::ZERO, CPU_BATCH_PIXELS),
            // No batch holds more than the largest single image, so that a batch's activations
            // never need more memory than that image's.
            Provider::Cuda(_) => (GPU_MAX_WAIT, limits.max_image_pixels),
        };
        BatchPolicy {
            max_batch: self.max_batch,
            max_batch_pixels: self.max_batch_pixels.unwrap_or(max_batch_pixels),
            max_wait: self.max_wait.unwrap_or(max_wait),
        }
    }
}

/// Settings of a [`Batcher`] that runs ONNX Runtime.
#[derive(Clone, Debug)]
pub struct BatcherOptions {
    /// The engines.
    pub engine: EngineOptions,
    /// Bounds of a batch.
    pub batching: Batching,
    /// Bounds of the queue.
    pub limits: QueueLimits,
}

/// A handle to the queue and its engines. Dropping the last one stops the engines, after they have answered all requests
/// that wait.
pub struct Batcher<B: Backend = OnnxRuntimeBackend>(Arc<Inner<B>>);

struct Inner<B: Backend> {
    queue: Arc<Queue<B>>,
    providers: Vec<Provider>,
    /// One for each engine.
    session_builders: Vec<B::SessionBuilder>,
    threads: Vec<JoinHandle<()>>,
}

impl Batcher {
    /// Starts engines of ONNX Runtime, each on a thread of its own.
    ///
    /// # Errors
    /// If ONNX Runtime or the device cannot be used, or no thread can be started.
    pub fn start(options: &BatcherOptions, metrics: &InferenceMetrics) -> Result<Self, StartError> {
        let backends = OnnxRuntimeBackend::start_all(&options.engine)?;
        Self::start_threads(backends, options.batching, options.limits, metrics)
    }
}

impl<B: Backend> Batcher<B> {
    /// Gives each of `backends`, at least one, a thread of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start_threads(
        backends: Vec<B>,
        batching: Batching,
        limits: QueueLimits,
        metrics: &InferenceMetrics,
    ) -> Result<Self, StartError> {
        let (mut inner, workers) = Inner::new(backends, batching, limits, metrics);
        for worker in workers {
            inner.threads.push(worker.start_thread().map_err(StartError::Thread)?);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Runs `backends`, at least one, as tasks of the current tokio runtime, whose clock may be paused. The tasks end when
    /// the last handle is dropped and all requests are answered.
    #[cfg(any(test, feature = "fake"))]
    pub fn spawn_tasks(
        backends: Vec<B>,
        batching: Batching,
        limits: QueueLimits,
        metrics: &InferenceMetrics,
    ) -> (Self, tokio::task::JoinSet<()>) {
        let (inner, workers) = Inner::new(backends, batching, limits, metrics);
        let tasks = workers.into_iter().map(Worker::run).collect();
        (Self(Arc::new(inner)), tasks)
    }

    /// The device of each engine; at least one.
    pub fn providers(&self) -> &[Provider] {
        &self.0.providers
    }

    /// Puts a request into the queue. Dropping the receiver takes it out again, unless it already
    /// runs.
    ///
    /// # Errors
    /// If the queue is full, too long for the request's deadline, or closed.
    pub fn submit(
        &self,
        request: BatchRequest<B::Model>,
    ) -> Result<oneshot::Receiver<Result<BatchReply, BatchError>>, BatchError> {
        self.0.queue.push(request)
    }

    /// How long an image that came now would wait for its turn.
    pub fn predicted_wait(&self) -> Duration {
        self.0.queue.predicted_wait()
    }

    /// Builds the sessions of every engine for these layers and runs each on a black image, so that no request has to
    /// wait for that. Returns the layers of that image.
    ///
    /// Sessions are built on this thread, one after the other, and engines take them over between two runs. So requests
    /// go on meanwhile, and a model that does not run never reaches an engine. Blocks until all engines have theirs.
    ///
    /// # Errors
    /// If the model does not run.
    ///
    /// # Panics
    /// If called from async code.
    pub fn warm_up(
        &self,
        model: &B::Model,
        layers: &LayerSet,
        size: ImageSize,
    ) -> Result<Vec<LayerOutput>, BatchError> {
        warm_up::warm_up(&self.0.session_builders, &self.0.queue, &WarmUpRun::new(model, layers, size))
    }

    /// Runs layers on a black image once, on this thread, and drops the session. This blocks.
    ///
    /// # Errors
    /// If the model does not run.
    pub fn try_out(
        &self,
        model: &B::Model,
        layers: &LayerSet,
        size: ImageSize,
    ) -> Result<Vec<LayerOutput>, BatchError> {
        warm_up::try_out(&self.0.session_builders, &WarmUpRun::new(model, layers, size))
    }

    /// Drops the sessions of a model that is not served any more, as soon as engines have time.
    pub fn forget(&self, model: ModelId) {
        for engine in 0..self.0.providers.len() {
            self.0.queue.send(engine, EngineCommand::Forget(model));
        }
    }
}

impl<B: Backend> Clone for Batcher<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backend> Inner<B> {
    fn new(
        backends: Vec<B>,
        batching: Batching,
        limits: QueueLimits,
        metrics: &InferenceMetrics,
    ) -> (Self, Vec<Worker<B>>) {
        let providers: Vec<Provider> = backends.iter().map(Backend::provider).collect();
        let session_builders = backends.iter().map(Backend::session_builder).collect();
        let policy = batching.policy(providers[0], limits);
        let queue = Arc::new(Queue::new(backends.len(), policy, limits, metrics.clone()));
        let worker = |(index, backend)| Worker { index, backend, queue: Arc::clone(&queue), metrics: metrics.clone() };
        let workers = backends.into_iter().enumerate().map(worker).collect();
        (Self { queue, providers, session_builders, threads: Vec::new() }, workers)
    }
}

impl<B: Backend> Drop for Inner<B> {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic of the thread was logged where it happened.
            let _ = thread.join();
        }
    }
}

/// The engines could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// ONNX Runtime does not start.
    #[error(transparent)]
    OnnxRuntime(#[from] OnnxRuntimeError),
    /// The operating system gives no thread.
    #[error("cannot start the engine threads")]
    Thread(#[source] std::io::Error),
}

#[cfg(test)]
mod tests;
