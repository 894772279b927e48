//! Builds sessions before an engine needs them.

use super::library::Runtime;
use super::library::Threads;
use super::session::CutSession;
use super::session_pool::SharedSessionPool;
use crate::backend::{BackendError, ImageBatch, LayerOutput, LayerSet, ModelId, SessionBuilder};
use crate::model_file::ModelFile;

/// Builds the sessions of one engine on the caller's thread.
#[derive(Clone)]
pub struct OnnxSessionBuilder {
    pub(super) runtime: Runtime,
    pub(super) threads: Threads,
    /// The sessions that the engines of a CPU share.
    pub(super) shared: Option<SharedSessionPool>,
}

/// A session that has run once, for an engine to take over.
pub struct WarmSession {
    pub(super) model: ModelId,
    pub(super) layers: LayerSet,
    pub(super) session: CutSession,
}

impl OnnxSessionBuilder {
    fn build_with(
        &self,
        threads: Threads,
        model: &ModelFile,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<(WarmSession, Vec<Vec<LayerOutput>>), BackendError> {
        let mut session = CutSession::build(&self.runtime, model, layers, threads)?;
        // One run touches every kernel.
        let outputs = session.run_once(layers, batch)?;
        Ok((WarmSession { model: model.id(), layers: layers.clone(), session }, outputs))
    }
}

impl SessionBuilder for OnnxSessionBuilder {
    type Model = ModelFile;
    type Session = WarmSession;

    fn build(
        &self,
        model: &ModelFile,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<(WarmSession, Vec<Vec<LayerOutput>>), BackendError> {
        self.build_with(self.threads, model, layers, batch)
    }

    fn build_shared(&self, model: &ModelFile, layers: &LayerSet, batch: ImageBatch<'_>) -> Result<(), BackendError> {
        if let Some(pool) = &self.shared {
            let (session, _) = self.build_with(Threads::All, model, layers, batch)?;
            pool.change(move |sessions| sessions.adopt(session));
        }
        Ok(())
    }
}
