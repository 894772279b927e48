//! Sessions that are built before requests need them.

use densecl_models::geometry::ImageSize;
use tokio::sync::oneshot;

use super::queue::Queue;
use super::worker::{EngineCommand, catch_panic_of};
use super::{BatchError, LayerOutput};
use crate::backend::{Backend, BackendModel, ImageBatch, LayerSet, SessionBuilder};

/// A run on a black image.
#[derive(Clone, Debug)]
pub(super) struct WarmUpRun<M> {
    pub(super) model: M,
    pub(super) layers: LayerSet,
    size: ImageSize,
}

impl<M: BackendModel> WarmUpRun<M> {
    pub(super) fn new(model: &M, layers: &LayerSet, size: ImageSize) -> Self {
        Self { model: model.clone(), layers: layers.clone(), size }
    }

    /// The image, `[height, width, 3]`.
    pub(super) fn black_image(&self) -> Vec<u8> {
        vec![0; self.size.height as usize * self.size.width as usize * 3]
    }

    /// A batch of images of this run's size.
    pub(super) fn batch<'a>(&self, images: &'a [&'a [u8]]) -> ImageBatch<'a> {
        ImageBatch { height: self.size.height as usize, width: self.size.width as usize, images }
    }
}

/// Builds the session of every engine, one after the other, and returns the layers of the black image. Blocks until all
/// engines have taken theirs over.
pub(super) fn warm_up<B: Backend>(
    builders: &[B::SessionBuilder],
    queue: &Queue<B>,
    run: &WarmUpRun<B::Model>,
) -> Result<Vec<LayerOutput>, BatchError> {
    let image = run.black_image();
    let images = [image.as_slice()];
    let batch = run.batch(&images);
    let mut outputs = Vec::new();
    for (engine, builder) in builders.iter().enumerate() {
        let (session, found) = catch_panic_of(|| builder.build(&run.model, &run.layers, batch))?;
        let (done, adopted) = oneshot::channel();
        queue.send(engine, EngineCommand::Adopt { session: Box::new(session), run: run.clone(), done });
        adopted.blocking_recv().unwrap_or(Err(BatchError::Closed))?;
        outputs = found;
    }
    if let Some(builder) = builders.first() {
        catch_panic_of(|| builder.build_shared(&run.model, &run.layers, batch))?;
    }
    Ok(outputs.pop().unwrap_or_default())
}

/// Builds a session, runs it, and drops it: only the layers of the black image are of interest.
pub(super) fn try_out<S: SessionBuilder>(
    builders: &[S],
    run: &WarmUpRun<S::Model>,
) -> Result<Vec<LayerOutput>, BatchError>
where
    S::Model: BackendModel,
{
    let builder = builders.first().ok_or(BatchError::Closed)?;
    let image = run.black_image();
    let (_, mut outputs) = catch_panic_of(|| builder.build(&run.model, &run.layers, run.batch(&[&image])))?;
    Ok(outputs.pop().unwrap_or_default())
}
