//! Changes of an engine's sessions, which the queue hands to it between two runs.

use densecl_models::geometry::ImageSize;
use tokio::sync::oneshot;

use super::BatchError;
use crate::backend::{Backend, BackendModel, ImageBatch, LayerSet, ModelId};

/// A change of an engine's sessions.
pub(super) enum EngineCommand<B: Backend> {
    /// Takes over a session that was built for this engine, and reports the result.
    Adopt { session: Box<B::Session>, run: WarmUpRun<B::Model>, done: oneshot::Sender<Result<(), BatchError>> },
    /// Drops the sessions of a model that is not served any more.
    Forget(ModelId),
}

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
