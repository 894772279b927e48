//! Sessions that are built before requests need them.

use tokio::sync::oneshot;

use super::engine_command::{EngineCommand, WarmUpRun};
use super::panics::catch_panic_of;
use super::queue::Queue;
use super::{BatchError, LayerOutput};
use crate::backend::{Backend, BackendModel, SessionBuilder};

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
