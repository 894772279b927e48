//! Sessions before requests need them, made so that requests need not wait meanwhile.
//!
//! A session is built and run once on the thread of whoever asks; then the engine takes it over
//! between two runs. So a model that does not run never comes near an engine.

use std::sync::mpsc;

use super::queue::Queue;
use super::worker::{Errand, caught};
use super::{BatchError, LayerOutput};
use crate::engine::{Engine, ImageBatch, LayerSet, ModelFile, ModelId, SharedSessions, Workshop};

/// A run on a black image, for what it leaves behind.
#[derive(Clone, Debug)]
pub(super) struct Rehearsal {
    pub(super) model: ModelFile,
    pub(super) layers: LayerSet,
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Rehearsal {
    /// Calls `run` with the image.
    pub(super) fn on_black<T>(&self, run: impl FnOnce(ImageBatch<'_>) -> T) -> T {
        let black = vec![0; self.height * self.width * 3];
        run(ImageBatch { height: self.height, width: self.width, images: &[&black] })
    }
}

/// The workshops of all engines.
pub(super) struct Workshops {
    /// One for each engine.
    own: Vec<Workshop>,
    shared: Option<SharedSessions>,
}

impl Workshops {
    pub(super) fn of(engines: &[Engine]) -> Self {
        Self { own: engines.iter().map(Engine::workshop).collect(), shared: engines.first().and_then(Engine::shared) }
    }

    /// Makes the sessions of every engine for a rehearsal, one engine after the other, and says what
    /// came out of it. Blocks until all engines have taken theirs over.
    pub(super) fn rehearse(&self, queue: &Queue, rehearsal: &Rehearsal) -> Result<Vec<LayerOutput>, BatchError> {
        let Rehearsal { model, layers, .. } = rehearsal;
        let prepare =
            |workshop: &Workshop| caught(|| rehearsal.on_black(|batch| workshop.prepare(model, layers, batch)));
        let mut outputs = Vec::new();
        for (engine, workshop) in self.own.iter().enumerate() {
            let (prepared, found) = prepare(workshop)?;
            let (done, adopted) = mpsc::channel();
            queue.send(engine, Errand::Adopt { prepared: Box::new(prepared), rehearsal: rehearsal.clone(), done });
            adopted.recv().unwrap_or(Err(BatchError::Closed))?;
            outputs = found;
        }
        if let Some(shared) = &self.shared {
            shared.adopt(prepare(shared.workshop())?.0);
        }
        Ok(outputs.pop().unwrap_or_default())
    }

    /// Makes a session, runs it, and drops it again: only what comes out is of interest.
    pub(super) fn try_out(&self, rehearsal: &Rehearsal) -> Result<Vec<LayerOutput>, BatchError> {
        let Rehearsal { model, layers, .. } = rehearsal;
        let Some(workshop) = self.own.first() else { return Err(BatchError::Closed) };
        let (_, mut outputs) = caught(|| rehearsal.on_black(|batch| workshop.prepare(model, layers, batch)))?;
        Ok(outputs.pop().unwrap_or_default())
    }

    /// Drops the sessions of a model in all engines, each when it has time.
    pub(super) fn forget(&self, queue: &Queue, model: ModelId) {
        for engine in 0..self.own.len() {
            queue.send(engine, Errand::Forget(model));
        }
        if let Some(shared) = &self.shared {
            shared.forget(model);
        }
    }
}
