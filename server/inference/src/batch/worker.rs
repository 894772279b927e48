//! The engine threads: each takes batches, runs them, and hands out the answers.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::queue::{Pending, Queue, Work};
use super::warm_up::Rehearsal;
use super::{BatchError, BatchReply};
use crate::engine::{Engine, EngineError, ImageBatch, LayerOutput, Load, ModelId, Prepared, Provider};
use crate::metrics::BatchMetrics;

/// What an engine is to do about its sessions.
pub(super) enum Errand {
    /// Take over a session that was made for it, and say how that went.
    Adopt { prepared: Box<Prepared>, rehearsal: Rehearsal, done: mpsc::Sender<Result<(), BatchError>> },
    /// Drop those of a model that is not served any more.
    Forget(ModelId),
}

/// Starts thread `index` of the queue's.
pub(super) fn start(
    index: usize,
    mut engine: Engine,
    queue: Arc<Queue>,
    metrics: BatchMetrics,
) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(format!("engine-{index}")).spawn(move || serve(index, &mut engine, &queue, &metrics))
}

fn serve(index: usize, engine: &mut Engine, queue: &Queue, metrics: &BatchMetrics) {
    // Whatever ends this thread, nobody is left waiting for it.
    let _abandon = AbandonOnDrop(queue);
    while let Some(work) = queue.next(index) {
        match work {
            Work::Run(batch, load) => {
                let begun = Instant::now();
                let result = unless_it_panics(engine, |engine| run(engine, &batch, load));
                let time = begun.elapsed();
                metrics.ran(batch.len(), time);
                if result.is_ok() {
                    queue.observe(&batch, load, time);
                }
                answer(batch, begun, result);
            }
            Work::Errand(Errand::Adopt { prepared, rehearsal, done }) => {
                let result = unless_it_panics(engine, |engine| adopt(engine, *prepared, &rehearsal));
                // Whoever asked may have gone.
                let _ = done.send(result);
            }
            Work::Errand(Errand::Forget(model)) => engine.forget(model),
        }
    }
}

fn unless_it_panics<T>(
    engine: &mut Engine,
    work: impl FnOnce(&mut Engine) -> Result<T, EngineError>,
) -> Result<T, BatchError> {
    let result = caught(|| work(engine));
    if matches!(result, Err(BatchError::Panicked(_))) {
        // What the panic left behind in the sessions is unknown.
        engine.reset();
    }
    result
}

/// What `work` comes to, also if that is a panic.
pub(super) fn caught<T>(work: impl FnOnce() -> Result<T, EngineError>) -> Result<T, BatchError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| BatchError::Engine(Arc::new(error))),
        Err(panic) => Err(BatchError::Panicked(message_of(&*panic).into())),
    }
}

/// Runs one batch: the layers of each image.
fn run(engine: &mut Engine, batch: &[Pending], load: Load) -> Result<Vec<Vec<LayerOutput>>, EngineError> {
    let first = &batch.first().expect("a batch has at least one request").request;
    let images: Vec<&[u8]> = batch.iter().map(|pending| pending.request.rgb.as_slice()).collect();
    let images = ImageBatch { height: first.height, width: first.width, images: &images };
    engine.run(&first.model, &first.layers, images, load)
}

fn adopt(engine: &mut Engine, prepared: Prepared, rehearsal: &Rehearsal) -> Result<(), EngineError> {
    engine.adopt(prepared);
    if engine.provider() != Provider::Cpu {
        // CUDA keeps some state for each thread.
        rehearsal.on_black(|batch| engine.run(&rehearsal.model, &rehearsal.layers, batch, Load::Busy))?;
    }
    Ok(())
}

fn answer(batch: Vec<Pending>, begun: Instant, result: Result<Vec<Vec<LayerOutput>>, BatchError>) {
    let inference = begun.elapsed();
    let answers: Vec<Result<Vec<LayerOutput>, BatchError>> = match result {
        Ok(images) => images.into_iter().map(Ok).collect(),
        Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
    };
    for (pending, layers) in batch.into_iter().zip(answers) {
        let queued = begun.saturating_duration_since(pending.enqueued);
        // The caller may have gone while the batch ran; then there is nobody to tell.
        let _ = pending.reply.send(layers.map(|layers| BatchReply { layers, queued, inference }));
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

struct AbandonOnDrop<'a>(&'a Queue);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
