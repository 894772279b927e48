//! A backend without a model: tests of the queue, of batching, of warm-up and of draining run on it with tokio's paused
//! clock.
//!
//! A run takes [`FakeBackend::run_time`] on tokio's clock and computes what [`FakeBackend::compute`] returns. Whatever the
//! engines do is written to a [`FakeLog`].

use std::collections::HashSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::backend::{
    Backend, BackendError, BackendModel, ImageBatch, LayerOutput, LayerSet, Load, ModelId, Provider, SessionBuilder,
};

/// A model without a file.
#[derive(Clone, Debug)]
pub struct FakeModel(ModelId);

impl FakeModel {
    /// A model that differs from all others.
    #[expect(clippy::new_without_default, reason = "each one is different")]
    pub fn new() -> Self {
        Self(ModelId::next())
    }
}

impl BackendModel for FakeModel {
    fn id(&self) -> ModelId {
        self.0
    }
}

/// An event of an engine. Engines are numbered from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeEvent {
    /// An engine ran a batch. `built` says that it had to build the session first.
    Ran {
        /// The engine.
        engine: usize,
        /// The model.
        model: ModelId,
        /// The number of images.
        images: usize,
        /// How busy the machine was.
        load: Load,
        /// True if there was no session before.
        built: bool,
    },
    /// A session was built for an engine, on another thread.
    Built {
        /// The engine.
        engine: usize,
        /// The model.
        model: ModelId,
    },
    /// An engine took over a session.
    Adopted {
        /// The engine.
        engine: usize,
        /// The model.
        model: ModelId,
    },
    /// An engine dropped the sessions of a model.
    Forgot {
        /// The engine.
        engine: usize,
        /// The model.
        model: ModelId,
    },
    /// An engine dropped all sessions.
    Reset {
        /// The engine.
        engine: usize,
    },
}

/// The events of all engines that share it, in order.
#[derive(Clone, Debug, Default)]
pub struct FakeLog(Arc<Mutex<Vec<FakeEvent>>>);

impl FakeLog {
    /// Removes and returns the events so far.
    pub fn take(&self) -> Vec<FakeEvent> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn push(&self, event: FakeEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}

/// The layers of each image of a batch, or an error. It may panic.
type Compute<M> = dyn Fn(&M, &LayerSet, ImageBatch<'_>) -> Result<Vec<Vec<LayerOutput>>, BackendError> + Send + Sync;

/// An engine that runs no model.
pub struct FakeBackend<M = FakeModel> {
    /// Its number in the log.
    pub engine: usize,
    /// The device that it claims to run on.
    pub provider: Provider,
    /// The time of a run on tokio's clock, whatever the batch. Zero needs no tokio runtime.
    pub run_time: Duration,
    /// Computes the outputs of runs.
    pub compute: Arc<Compute<M>>,
    /// Where its events go.
    pub log: FakeLog,
    sessions: HashSet<(ModelId, LayerSet)>,
}

impl<M> fmt::Debug for FakeBackend<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeBackend").field("engine", &self.engine).finish_non_exhaustive()
    }
}

impl FakeBackend<FakeModel> {
    /// Engines on a CPU. Each layer of an image is one cell, with one value: the first byte of the image.
    pub fn first_bytes(engines: usize, run_time: Duration, log: &FakeLog) -> Vec<Self> {
        Self::with_compute(engines, run_time, log, |_, layers, batch| {
            let cell = |value: u8| LayerOutput { channels: 1, height: 1, width: 1, data: vec![f32::from(value)] };
            let layers_of = |image: &&[u8]| vec![cell(image[0]); layers.names().len()];
            Ok(batch.images.iter().map(layers_of).collect())
        })
    }
}

impl<M: BackendModel> FakeBackend<M> {
    /// Engines on a CPU, with a function that computes the outputs of runs.
    pub fn with_compute(
        engines: usize,
        run_time: Duration,
        log: &FakeLog,
        compute: impl Fn(&M, &LayerSet, ImageBatch<'_>) -> Result<Vec<Vec<LayerOutput>>, BackendError>
        + Send
        + Sync
        + 'static,
    ) -> Vec<Self> {
        let compute: Arc<Compute<M>> = Arc::new(compute);
        let backend = |engine| Self {
            engine,
            provider: Provider::Cpu,
            run_time,
            compute: Arc::clone(&compute),
            log: log.clone(),
            sessions: HashSet::new(),
        };
        (0..engines).map(backend).collect()
    }
}

impl<M: BackendModel> Backend for FakeBackend<M> {
    type Model = M;
    type Session = FakeSession;
    type SessionBuilder = FakeSessionBuilder<M>;

    fn provider(&self) -> Provider {
        self.provider
    }

    fn session_builder(&self) -> FakeSessionBuilder<M> {
        FakeSessionBuilder { engine: self.engine, compute: Arc::clone(&self.compute), log: self.log.clone() }
    }

    async fn run(
        &mut self,
        model: &M,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        load: Load,
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        let built = self.sessions.insert((model.id(), layers.clone()));
        let images = batch.images.len();
        self.log.push(FakeEvent::Ran { engine: self.engine, model: model.id(), images, load, built });
        if !self.run_time.is_zero() {
            tokio::time::sleep(self.run_time).await;
        }
        (self.compute)(model, layers, batch)
    }

    fn adopt(&mut self, session: FakeSession) {
        self.log.push(FakeEvent::Adopted { engine: self.engine, model: session.model });
        self.sessions.insert((session.model, session.layers));
    }

    fn forget(&mut self, model: ModelId) {
        self.log.push(FakeEvent::Forgot { engine: self.engine, model });
        self.sessions.retain(|(id, _)| *id != model);
    }

    fn reset(&mut self) {
        self.log.push(FakeEvent::Reset { engine: self.engine });
        self.sessions.clear();
    }
}

/// A session of a [`FakeBackend`].
#[derive(Debug)]
pub struct FakeSession {
    model: ModelId,
    layers: LayerSet,
}

/// Builds sessions for a [`FakeBackend`].
pub struct FakeSessionBuilder<M> {
    engine: usize,
    compute: Arc<Compute<M>>,
    log: FakeLog,
}

impl<M: BackendModel> SessionBuilder for FakeSessionBuilder<M> {
    type Model = M;
    type Session = FakeSession;

    fn build(
        &self,
        model: &M,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<(FakeSession, Vec<Vec<LayerOutput>>), BackendError> {
        self.log.push(FakeEvent::Built { engine: self.engine, model: model.id() });
        let outputs = (self.compute)(model, layers, batch)?;
        Ok((FakeSession { model: model.id(), layers: layers.clone() }, outputs))
    }
}
