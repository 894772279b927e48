//! The engine thread: takes batches, runs them, hands out the answers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::queue::{Pending, Queue};
use super::{BatchError, BatchReply, LayerOutput, StartError};
use crate::engine::{Engine, EngineOptions, ImageBatch, LayerBatch, Provider};
use crate::metrics::BatchMetrics;

/// Starts the thread and waits until its engine has started too.
pub(super) fn start(
    options: EngineOptions,
    queue: Arc<Queue>,
    metrics: BatchMetrics,
) -> Result<(Provider, JoinHandle<()>), StartError> {
    let (started, has_started) = mpsc::sync_channel(1);
    let body = move || {
        // The starter waits for what is sent, so sending cannot fail.
        match Engine::start(&options) {
            Err(error) => drop(started.send(Err(error))),
            Ok(mut engine) => {
                let _ = started.send(Ok(engine.provider()));
                serve(&mut engine, &queue, &metrics);
            }
        }
    };
    let thread = thread::Builder::new().name("engine".to_owned()).spawn(body).map_err(StartError::Thread)?;
    let provider = has_started.recv().map_err(|_| StartError::Died)??;
    Ok((provider, thread))
}

fn serve(engine: &mut Engine, queue: &Queue, metrics: &BatchMetrics) {
    // Whatever ends this thread, nobody is left waiting for it.
    let _abandon = AbandonOnDrop(queue);
    while let Some(batch) = queue.next_batch() {
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| run(engine, &batch)));
        let result = result.unwrap_or_else(|panic| {
            // What the panic left behind in the sessions is unknown.
            engine.reset();
            Err(BatchError::Panicked(message_of(&*panic).into()))
        });
        metrics.ran(batch.len(), begun.elapsed());
        answer(batch, begun, &result);
    }
}

/// Runs one batch; the outputs are `[layer][N, C, h, w]`.
fn run(engine: &mut Engine, batch: &[Pending]) -> Result<Vec<LayerBatch>, BatchError> {
    let first = &batch.first().expect("a batch has at least one request").request;
    let joined: Vec<u8>;
    let pixels = if batch.len() == 1 {
        &first.rgb
    } else {
        joined = batch.iter().map(|pending| pending.request.rgb.as_slice()).collect::<Vec<_>>().concat();
        &joined
    };
    let images = ImageBatch { count: batch.len(), height: first.height, width: first.width, pixels };
    engine.run(&first.model, &first.layers, images).map_err(|error| BatchError::Engine(Arc::new(error)))
}

fn answer(batch: Vec<Pending>, begun: Instant, result: &Result<Vec<LayerBatch>, BatchError>) {
    let inference = begun.elapsed();
    for (place, pending) in batch.into_iter().enumerate() {
        let reply = result.as_ref().map_err(Clone::clone).map(|layers| BatchReply {
            layers: layers.iter().map(|layer| image_of(layer, place)).collect(),
            queued: begun.saturating_duration_since(pending.enqueued),
            inference,
        });
        // The caller may have gone while the batch ran; then there is nobody to tell.
        let _ = pending.reply.send(reply);
    }
}

/// The part of `[N, C, h, w]` that belongs to one image.
fn image_of(layer: &LayerBatch, place: usize) -> LayerOutput {
    let [_, channels, height, width] = layer.shape;
    let length = channels * height * width;
    LayerOutput { channels, height, width, data: layer.data[place * length..(place + 1) * length].to_vec() }
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
