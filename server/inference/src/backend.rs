//! The interface between the queue and the library that runs models.
//!
//! A [`Backend`] is one engine: it runs batches, one after the other, on the thread that owns it. It keeps *sessions*,
//! which are models made ready to compute certain layers. A [`SessionBuilder`] makes sessions on other threads, so that
//! an engine takes them over without having to stop for that.
//!
//! No queue, no batching and no library here: ONNX Runtime is in [`onnx_runtime`](crate::onnx_runtime), a backend for
//! tests in `fake` (feature `fake`).

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use densecl_models::ModelError;

/// One engine: runs models on one device. It is owned by one thread, and runs one batch at a time.
pub trait Backend: Send + 'static {
    /// A model that can be run.
    type Model: BackendModel;
    /// A session that was built elsewhere and has run once.
    type Session: Send + 'static;
    /// Builds sessions for this engine on other threads.
    type SessionBuilder: SessionBuilder<Model = Self::Model, Session = Self::Session>;

    /// The device that it runs models on.
    fn provider(&self) -> Provider;

    /// A builder of sessions for this engine.
    fn session_builder(&self) -> Self::SessionBuilder;

    /// Computes `layers` of all images of a batch: a list per image, each in the order of [`LayerSet::names`]. Builds the
    /// session if there is none.
    ///
    /// The future is polled on the engine's own thread and may block it.
    ///
    /// # Errors
    /// If the session cannot be built or the run fails.
    fn run(
        &mut self,
        model: &Self::Model,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        load: Load,
    ) -> impl Future<Output = Result<Vec<Vec<LayerOutput>>, BackendError>> + Send;

    /// Takes over a session that this engine's [`SessionBuilder`] built.
    fn adopt(&mut self, session: Self::Session);

    /// Drops the sessions of a model that is not served any more.
    fn forget(&mut self, model: ModelId);

    /// Drops all sessions, whose state is unknown after a panic. The next run builds its session again.
    fn reset(&mut self);
}

/// Builds the sessions of one engine on any thread, while the engine runs others.
pub trait SessionBuilder: Send + Sync + 'static {
    /// A model that can be run.
    type Model;
    /// A session for [`Backend::adopt`].
    type Session;

    /// Builds the session for `layers` of `model` and runs it on `batch`. Returns the session, and the layers of each
    /// image. This blocks.
    ///
    /// # Errors
    /// If the session cannot be built or does not run.
    fn build(
        &self,
        model: &Self::Model,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<(Self::Session, Vec<Vec<LayerOutput>>), BackendError>;

    /// Does the same for the sessions that this engine shares with others, if there are any, and puts the new one among
    /// them. This blocks.
    ///
    /// # Errors
    /// If the session cannot be built or does not run.
    fn build_shared(&self, model: &Self::Model, layers: &LayerSet, batch: ImageBatch<'_>) -> Result<(), BackendError> {
        let _ = (model, layers, batch);
        Ok(())
    }
}

/// A model that can be run. Clones are cheap and have the same id.
pub trait BackendModel: Clone + fmt::Debug + Send + Sync + 'static {
    /// The id that no other loaded model has.
    fn id(&self) -> ModelId;
}

/// Identifies one loading of a model; a file that is loaded twice has two ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelId(u64);

impl ModelId {
    /// A new id, unique in this process.
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The device that an engine runs models on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The CPU.
    Cpu,
    /// A CUDA device by its number.
    Cuda(u32),
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The layers that one run computes, in this order, each of them once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerSet(Arc<[String]>);

impl LayerSet {
    /// Takes the names of one or more layers; `None` if there is none, or if one is repeated.
    pub fn new<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Option<Self> {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let is_repeated = names.iter().enumerate().any(|(i, name)| names[..i].contains(name));
        (!names.is_empty() && !is_repeated).then(|| Self(names.into()))
    }

    /// The names, at least one.
    pub fn names(&self) -> &[String] {
        &self.0
    }
}

/// Images of one size, as a model takes them.
#[derive(Clone, Copy, Debug)]
pub struct ImageBatch<'a> {
    /// Height of each image, in pixels.
    pub height: usize,
    /// Width of each image, in pixels.
    pub width: usize,
    /// RGB bytes of each image, `[height, width, 3]`; at least one image.
    pub images: &'a [&'a [u8]],
}

/// One layer of one image.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerOutput {
    /// Length of a descriptor.
    pub channels: usize,
    /// Cells along y.
    pub height: usize,
    /// Cells along x.
    pub width: usize,
    /// Un-normalised values, `[channels, height, width]`.
    pub data: Vec<f32>,
}

/// How busy the machine is while a batch runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// No other engine runs: the run may use all threads.
    Idle,
    /// Other engines run too, or are about to.
    Busy,
}

/// Why a model could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The model file cannot be read or cut.
    #[error("cannot load the model {path}")]
    Model {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: ModelError,
    },
    /// The backend refuses the model.
    #[error("ONNX Runtime cannot load the model {path}")]
    Session {
        /// The file.
        path: PathBuf,
        /// The backend's own error.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The model's file was overwritten after it was loaded.
    #[error("the file of model `{name}`, version {version}, was overwritten after it was loaded")]
    FileChanged {
        /// The model.
        name: String,
        /// Its version.
        version: u32,
    },
    /// A run failed.
    #[error("inference failed")]
    Run(#[source] Box<dyn Error + Send + Sync>),
    /// An output differs from what the manifest promises.
    #[error("layer `{layer}` came out wrong: {reason}")]
    Output {
        /// The layer.
        layer: String,
        /// The fault.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_set_has_each_layer_once() {
        assert_eq!(LayerSet::new(["res3", "res4"]).expect("two layers").names(), ["res3", "res4"]);
        assert_eq!(LayerSet::new(["res3", "res3"]), None);
        assert_eq!(LayerSet::new(Vec::<String>::new()), None);
    }
}
