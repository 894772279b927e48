//! The loop of an engine: takes work from the queue, runs it, and answers the callers.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::time::Instant;

use super::engine_command::{EngineCommand, WarmUpRun};
use super::panics::catch_panic;
use super::queue::{Pending, Queue, Work};
use super::{BatchError, BatchReply};
use crate::backend::{Backend, BackendError, ImageBatch, LayerOutput, Load, Provider};
use crate::metrics::InferenceMetrics;

/// One engine of a [`Queue`].
pub(super) struct Worker<B: Backend> {
    /// Its place in the queue.
    pub(super) index: usize,
    pub(super) backend: B,
    pub(super) queue: Arc<Queue<B>>,
    pub(super) metrics: InferenceMetrics,
}

impl<B: Backend> Worker<B> {
    /// Runs the loop on a thread of its own, with a runtime that has timers and nothing else.
    pub(super) fn start_thread(self) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let name = format!("engine-{}", self.index);
        thread::Builder::new().name(name).spawn(move || runtime.block_on(self.run()))
    }

    /// Works until the queue is closed and empty.
    pub(super) async fn run(mut self) {
        // However this ends, no caller is left waiting.
        let queue = Arc::clone(&self.queue);
        let _abandon = AbandonOnDrop(&queue);
        while let Some(work) = queue.next(self.index).await {
            match work {
                Work::Run(batch, load) => self.run_batch(batch, load).await,
                Work::Command(EngineCommand::Adopt { session, run, done }) => {
                    let result = catch_panic(adopt(&mut self.backend, *session, &run)).await;
                    self.reset_after_panic(result.as_ref().err());
                    // The caller may have gone.
                    let _ = done.send(result);
                }
                Work::Command(EngineCommand::Forget(model)) => self.backend.forget(model),
            }
        }
    }

    async fn run_batch(&mut self, batch: Vec<Pending<B::Model>>, load: Load) {
        let begun = Instant::now();
        let result = catch_panic(run(&mut self.backend, &batch, load)).await;
        let time = begun.elapsed();
        self.reset_after_panic(result.as_ref().err());
        self.metrics.record_run(batch.len(), time);
        if result.is_ok() {
            self.queue.observe(&batch, load, time);
        }
        answer(batch, begun, time, result);
    }

    fn reset_after_panic(&mut self, error: Option<&BatchError>) {
        if let Some(BatchError::Panicked(_)) = error {
            // The state that the panic left in the sessions is unknown.
            self.backend.reset();
        }
    }
}

/// Runs one batch: the layers of each image.
async fn run<B: Backend>(
    backend: &mut B,
    batch: &[Pending<B::Model>],
    load: Load,
) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
    let first = &batch.first().expect("a batch has at least one request").request;
    let images: Vec<&[u8]> = batch.iter().map(|pending| pending.request.rgb.as_slice()).collect();
    let images = ImageBatch { height: first.height, width: first.width, images: &images };
    backend.run(&first.model, &first.layers, images, load).await
}

async fn adopt<B: Backend>(
    backend: &mut B,
    session: B::Session,
    run: &WarmUpRun<B::Model>,
) -> Result<(), BackendError> {
    backend.adopt(session);
    match backend.provider() {
        Provider::Cpu => Ok(()),
        // CUDA keeps some state for each thread.
        Provider::Cuda(_) => {
            let image = run.black_image();
            backend.run(&run.model, &run.layers, run.batch(&[&image]), Load::Busy).await.map(drop)
        }
    }
}

fn answer<M>(
    batch: Vec<Pending<M>>,
    begun: Instant,
    inference: Duration,
    result: Result<Vec<Vec<LayerOutput>>, BatchError>,
) {
    let answers: Vec<Result<Vec<LayerOutput>, BatchError>> = match result {
        Ok(images) => images.into_iter().map(Ok).collect(),
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    };
    for (pending, layers) in batch.into_iter().zip(answers) {
        let queued = begun.saturating_duration_since(pending.enqueued);
        // Fails if the caller has gone while the batch ran.
        let _ = pending.reply.send(layers.map(|layers| BatchReply { layers, queued, inference }));
    }
}

struct AbandonOnDrop<'a, B: Backend>(&'a Queue<B>);

impl<B: Backend> Drop for AbandonOnDrop<'_, B> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
