//! Collects requests into batches and runs them on engine threads.
//!
//! [`Batcher::submit`] puts a request into a bounded queue; engine threads take batches of equal
//! model, layers and image size out of it. Every request that was accepted is answered exactly
//! once, unless its caller has gone. A panic inside a run fails that batch alone.
//!
//! It neither decodes nor resizes, and knows nothing of HTTP.

pub mod forecast;
pub mod policy;
mod queue;
mod warm_up;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use densecl_models::geometry::ImageSize;
use tokio::sync::oneshot;

pub use self::policy::BatchPolicy;
use self::queue::Queue;
pub use self::queue::QueueLimits;
use self::warm_up::{Rehearsal, Workshops};
pub use crate::engine::LayerOutput;
use crate::engine::{Engine, EngineError, EngineOptions, LayerSet, ModelFile, ModelId, Provider};
use crate::metrics::BatchMetrics;

/// On a CPU a batch is worth its while only as long as reading the weights takes most of the time:
/// for small images. Measured with a ResNet-18, a run of so many pixels does 10 % more images per
/// second at 64 px and 13 % more at 128 px; four images of 224 px would gain 5 % and take four
/// times as long.
const CPU_BATCH_PIXELS: u64 = 1 << 16;
/// How long an image waits for others of its size where batches pay.
const GPU_MAX_WAIT: Duration = Duration::from_millis(2);

/// One image that layers are wanted of.
#[derive(Clone, Debug)]
pub struct BatchRequest {
    /// The model to run.
    pub model: ModelFile,
    /// What to compute.
    pub layers: LayerSet,
    /// Height of the image, in pixels.
    pub height: usize,
    /// Width of the image, in pixels.
    pub width: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
    /// After this the answer is of no use.
    pub deadline: Instant,
}

impl BatchRequest {
    fn pixels(&self) -> u64 {
        self.height as u64 * self.width as u64
    }

    /// What requests must have in common to share a batch.
    fn kind(&self) -> (&ModelFile, &LayerSet, usize, usize) {
        (&self.model, &self.layers, self.height, self.width)
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
    /// The engine failed.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// The run ended in a panic. The engine starts afresh with the next batch.
    #[error("the engine panicked: {0}")]
    Panicked(Arc<str>),
}

/// What may share a run; `None` is what suits the device.
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

/// How a [`Batcher`] is set up.
#[derive(Clone, Debug)]
pub struct BatcherOptions {
    /// The engines behind it.
    pub engine: EngineOptions,
    /// What may run together.
    pub batching: Batching,
    /// What may wait.
    pub limits: QueueLimits,
}

/// The way into the queue of the engine threads. Dropping the last one stops the threads, after
/// they have answered all that waits.
#[derive(Clone)]
pub struct Batcher(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    providers: Vec<Provider>,
    workshops: Workshops,
    threads: Vec<JoinHandle<()>>,
}

impl Batcher {
    /// Starts engines, each on a thread of its own.
    ///
    /// # Errors
    /// If ONNX Runtime or the device cannot be used, or no thread can be started.
    pub fn start(options: &BatcherOptions, metrics: &BatchMetrics) -> Result<Self, StartError> {
        let engines = Engine::start_all(&options.engine)?;
        let providers: Vec<Provider> = engines.iter().map(Engine::provider).collect();
        let policy = options.batching.policy(providers[0], options.limits);
        let queue = Arc::new(Queue::new(engines.len(), policy, options.limits, metrics.clone()));
        let workshops = Workshops::of(&engines);
        let mut inner = Inner { queue, providers, workshops, threads: Vec::new() };
        for (index, engine) in engines.into_iter().enumerate() {
            let thread = worker::start(index, engine, Arc::clone(&inner.queue), metrics.clone());
            inner.threads.push(thread.map_err(StartError::Thread)?);
        }
        Ok(Self(Arc::new(inner)))
    }

    /// What each engine really runs on; at least one.
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
        request: BatchRequest,
    ) -> Result<oneshot::Receiver<Result<BatchReply, BatchError>>, BatchError> {
        self.0.queue.push(request)
    }

    /// How long an image that came now would wait for its turn.
    pub fn predicted_wait(&self) -> Duration {
        self.0.queue.predicted_wait()
    }

    /// Builds the sessions of every engine for these layers and runs each on a black image, so that
    /// no request has to wait for that; requests of other models run meanwhile. Blocks until all
    /// engines have them. Returns what came out for the image.
    ///
    /// # Errors
    /// If the model does not run.
    pub fn warm_up(
        &self,
        model: &ModelFile,
        layers: &LayerSet,
        size: ImageSize,
    ) -> Result<Vec<LayerOutput>, BatchError> {
        let (height, width) = (size.height as usize, size.width as usize);
        let rehearsal = Rehearsal { model: model.clone(), layers: layers.clone(), height, width };
        self.0.workshops.rehearse(&self.0.queue, &rehearsal)
    }

    /// Runs layers on a black image once, without any engine, and keeps nothing. This blocks.
    ///
    /// # Errors
    /// If the model does not run.
    pub fn try_out(
        &self,
        model: &ModelFile,
        layers: &LayerSet,
        size: ImageSize,
    ) -> Result<Vec<LayerOutput>, BatchError> {
        let (height, width) = (size.height as usize, size.width as usize);
        self.0.workshops.try_out(&Rehearsal { model: model.clone(), layers: layers.clone(), height, width })
    }

    /// Drops the sessions of a model that nobody can ask for any more, as soon as engines have time.
    pub fn forget(&self, model: ModelId) {
        self.0.workshops.forget(&self.0.queue, model);
    }
}

/// The engine threads could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The operating system gives no thread.
    #[error("cannot start the engine threads")]
    Thread(#[source] std::io::Error),
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic of the thread was logged where it happened.
            let _ = thread.join();
        }
    }
}
