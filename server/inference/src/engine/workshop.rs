//! Where sessions are made before an engine needs them.

use super::library::Runtime;
use super::session::{CutSession, Threads};
use super::whole::WholeMachine;
use super::{EngineError, ImageBatch, LayerOutput, LayerSet, ModelFile, ModelId};

/// Makes the sessions of an engine on the caller's thread, so that the engine goes on running others
/// meanwhile.
#[derive(Clone)]
pub struct Workshop {
    pub(super) runtime: Runtime,
    pub(super) threads: Threads,
}

/// A session that has run once, for an engine to take over.
pub struct Prepared {
    pub(super) model: ModelId,
    pub(super) layers: LayerSet,
    pub(super) session: CutSession,
}

impl Workshop {
    /// Builds the session for `layers` of `model` and runs it on `batch`, which touches every kernel.
    ///
    /// # Errors
    /// If the session cannot be built or does not run.
    pub fn prepare(
        &self,
        model: &ModelFile,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<(Prepared, Vec<Vec<LayerOutput>>), EngineError> {
        let mut session = CutSession::build(&self.runtime, model, layers, self.threads)?;
        let outputs = session.rehearse(layers, batch)?;
        Ok((Prepared { model: model.id(), layers: layers.clone(), session }, outputs))
    }
}

/// The sessions with all threads that the engines of a CPU lend each other, from outside.
#[derive(Clone)]
pub struct SharedSessions {
    pub(super) whole: WholeMachine,
    pub(super) workshop: Workshop,
}

impl SharedSessions {
    /// Where they are made.
    pub fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// Puts a session among them.
    pub fn adopt(&self, prepared: Prepared) {
        self.whole.change(move |sessions| sessions.adopt(prepared));
    }

    /// Drops those of a model that is not served any more; their memory goes back.
    pub fn forget(&self, model: ModelId) {
        self.whole.change(move |sessions| sessions.release(model));
    }
}
