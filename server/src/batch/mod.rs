//! Collects requests into batches and runs them on an engine thread.
//!
//! [`Batcher::submit`] puts a request into a bounded queue; an engine thread takes batches of
//! equal model, layers and image size out of it. Every request that was accepted is answered
//! exactly once, unless its caller has gone. A panic inside a run fails that batch alone.
//!
//! It neither decodes nor resizes, and knows nothing of HTTP.

pub mod policy;
mod queue;
mod worker;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

pub use self::policy::BatchPolicy;
use self::queue::Queue;
pub use self::queue::QueueLimits;
use crate::engine::{EngineError, EngineOptions, LayerSet, ModelFile, Provider};
use crate::metrics::BatchMetrics;

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

/// What one layer says of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutput {
    /// Length of a descriptor.
    pub channels: usize,
    /// Cells along y.
    pub height: usize,
    /// Cells along x.
    pub width: usize,
    /// Un-normalised, `[channels, height, width]`.
    pub data: Vec<f32>,
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
    /// The queue has no room; try again later.
    #[error("the queue is full")]
    QueueFull,
    /// The deadline passed before the request's turn came.
    #[error("the deadline passed in the queue")]
    DeadlinePassed,
    /// The engine is shutting down.
    #[error("the engine has shut down")]
    Closed,
    /// The engine failed.
    #[error(transparent)]
    Engine(Arc<EngineError>),
    /// The run ended in a panic. The engine starts afresh with the next batch.
    #[error("the engine panicked: {0}")]
    Panicked(Arc<str>),
}

/// How a [`Batcher`] is set up.
#[derive(Clone, Debug)]
pub struct BatcherOptions {
    /// The engine behind it.
    pub engine: EngineOptions,
    /// What may run together.
    pub policy: BatchPolicy,
    /// What may wait.
    pub limits: QueueLimits,
}

/// The way into the queue of an engine thread. Dropping the last one stops the thread, after it
/// has answered all that waits.
#[derive(Clone)]
pub struct Batcher(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    provider: Provider,
    thread: Option<JoinHandle<()>>,
}

impl Batcher {
    /// Starts an engine on a thread of its own.
    ///
    /// # Errors
    /// If ONNX Runtime or the device cannot be used, or no thread can be started.
    pub fn start(options: BatcherOptions, metrics: BatchMetrics) -> Result<Self, StartError> {
        let queue = Arc::new(Queue::new(options.policy, options.limits, metrics.clone()));
        let (provider, thread) = worker::start(options.engine, Arc::clone(&queue), metrics)?;
        Ok(Self(Arc::new(Inner { queue, provider, thread: Some(thread) })))
    }

    /// What the models really run on.
    pub fn provider(&self) -> Provider {
        self.0.provider
    }

    /// Puts a request into the queue. Dropping the receiver takes it out again, unless it already
    /// runs.
    ///
    /// # Errors
    /// If the queue is full or closed.
    pub fn submit(
        &self,
        request: BatchRequest,
    ) -> Result<oneshot::Receiver<Result<BatchReply, BatchError>>, BatchError> {
        self.0.queue.push(request)
    }
}

/// The engine thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The engine does not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The operating system gives no thread.
    #[error("cannot start the engine thread")]
    Thread(#[source] std::io::Error),
    /// The thread ended before the engine had started.
    #[error("the engine thread ended while starting")]
    Died,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was logged where it happened.
            let _ = thread.join();
        }
    }
}
