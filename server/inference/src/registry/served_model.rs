//! One version of a model, ready to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use densecl_models::geometry::{ImageSize, inference_size};
use densecl_models::repository::ModelVersion;
use densecl_models::{GLOBAL, Layer, Manifest};

use super::error::{LookupError, OpenError};
use super::join_names;
use super::warm_up_layers::WarmUpLayers;
use crate::backend::{Backend, BackendError, LayerSet};
use crate::batch::{BatchError, BatchReply, BatchRequest, Batcher, LayerOutput};
use crate::model_file::ModelFile;
use crate::onnx_runtime::OnnxRuntimeBackend;

/// Size of the image that a model is tried out on: coarse layers have several cells, and more along x than along y.
const TRY_OUT_SIZE: ImageSize = ImageSize { width: 96, height: 64 };

/// One version of a model, ready to run. When the last clone is dropped, the engines drop its sessions.
pub struct ServedModel<B: Backend = OnnxRuntimeBackend>(Arc<LoadedModel<B>>);

struct LoadedModel<B: Backend> {
    file: ModelFile,
    batcher: Batcher<B>,
    /// True if the engines have sessions for the default layer and the warm-up layers.
    is_warm: AtomicBool,
}

impl<B: Backend> Clone for ServedModel<B> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<B: Backend> Drop for LoadedModel<B> {
    fn drop(&mut self) {
        self.batcher.forget(self.file.id());
    }
}

/// An image at the size that the model takes.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// In pixels, a multiple of the coarsest stride.
    pub height: usize,
    /// In pixels, a multiple of the coarsest stride.
    pub width: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl<B: Backend<Model = ModelFile>> ServedModel<B> {
    pub(super) fn open(found: &ModelVersion, batcher: &Batcher<B>) -> Result<Self, OpenError> {
        let ModelVersion { name, version, path } = found;
        let file = ModelFile::open(name, *version, path);
        let file = file.map_err(|source| OpenError::Model { path: path.clone(), source })?;
        Ok(Self(Arc::new(LoadedModel { file, batcher: batcher.clone(), is_warm: AtomicBool::new(false) })))
    }

    /// Its name in the repository.
    pub fn name(&self) -> &str {
        self.0.file.name()
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.0.file.version()
    }

    /// SHA-256 of its file and its manifest: models of equal digests answer alike.
    pub fn digest(&self) -> &[u8; 32] {
        self.0.file.digest()
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        self.0.file.manifest()
    }

    /// The layers named by `names`, one or several joined by `+`; the default layer if not given.
    ///
    /// # Errors
    /// If the model has no such layer, or one is named twice.
    pub fn layers(&self, names: Option<&str>) -> Result<LayerSet, LookupError> {
        let joined = names.unwrap_or(&self.manifest().default_layer);
        for layer in joined.split('+') {
            if self.manifest().layer(layer).is_none() {
                return Err(LookupError::UnknownLayer {
                    name: self.name().to_owned(),
                    layer: layer.to_owned(),
                    known: join_names(self.manifest().layers.iter().map(|Layer { name, .. }| name)),
                });
            }
        }
        LayerSet::new(joined.split('+')).ok_or_else(|| LookupError::RepeatedLayer { layers: joined.to_owned() })
    }

    /// As [`layers`](Self::layers), and `global` alone for the vector of the whole image, if the model has one.
    ///
    /// # Errors
    /// If the model has no such layer, one is named twice, or `global` is among others.
    pub fn layers_or_global(&self, names: Option<&str>) -> Result<LayerSet, LookupError> {
        let is_global = |name: &str| self.manifest().global.is_some() && name == GLOBAL;
        let Some(joined) = names.filter(|names| names.split('+').any(is_global)) else {
            return self.layers(names).map_err(|error| self.with_global_among_known(error));
        };
        let alone = LayerSet::new([joined]).filter(|_| is_global(joined));
        alone.ok_or_else(|| LookupError::StackedGlobal { layers: joined.to_owned() })
    }

    /// Names `global` beside the layers that an error says there are.
    fn with_global_among_known(&self, error: LookupError) -> LookupError {
        match error {
            LookupError::UnknownLayer { name, layer, known } if self.manifest().global.is_some() => {
                LookupError::UnknownLayer { name, layer, known: format!("{known}, {GLOBAL}") }
            }
            other => other,
        }
    }

    /// Computes layers of one image, or its `global` vector as a layer of one cell. Dropping the
    /// future takes the request out of the queue.
    ///
    /// # Errors
    /// If the queue is full, the deadline passes or the engine fails.
    pub async fn run(&self, image: ModelInput, layers: LayerSet, deadline: Instant) -> Result<BatchReply, BatchError> {
        let receiver = self.0.batcher.submit(self.request(image, layers, deadline))?;
        receiver.await.unwrap_or(Err(BatchError::Closed))
    }

    /// Blocking form of [`ServedModel::run`].
    ///
    /// # Errors
    /// If the queue is full, the deadline passes or the engine fails.
    ///
    /// # Panics
    /// If called from async code.
    pub fn run_blocking(
        &self,
        image: ModelInput,
        layers: LayerSet,
        deadline: Instant,
    ) -> Result<BatchReply, BatchError> {
        let receiver = self.0.batcher.submit(self.request(image, layers, deadline))?;
        receiver.blocking_recv().unwrap_or(Err(BatchError::Closed))
    }

    fn request(&self, image: ModelInput, layers: LayerSet, deadline: Instant) -> BatchRequest {
        let ModelInput { height, width, rgb } = image;
        BatchRequest { model: self.0.file.clone(), layers, height, width, rgb, deadline: deadline.into() }
    }

    /// True if both have the same digest, and so give the same answers.
    pub(super) fn has_digest_of(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// Warms up the default layer at the default side, and those of `warm_up_layers` that the model has; once.
    pub(super) fn warm_up(&self, warm_up_layers: &[WarmUpLayers]) -> Result<(), OpenError> {
        if self.0.is_warm.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.try_out()?;
        self.warm_up_one(&WarmUpLayers { layers: self.manifest().default_layer.clone(), side_px: None })?;
        let own = warm_up_layers.iter().filter(|warm_up| self.has_layers(&warm_up.layers));
        own.into_iter().try_for_each(|warm_up| self.warm_up_one(warm_up))?;
        self.0.is_warm.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs all outputs of a model that the trainer did not export, and compares their shapes with the manifest. The
    /// trainer compares them when it exports.
    fn try_out(&self) -> Result<(), OpenError> {
        let Manifest { training, fidelity, .. } = self.manifest();
        if training.is_some() || fidelity.is_some() {
            return Ok(());
        }
        let layers = LayerSet::new(self.outputs()).expect("a manifest has layers, each once");
        let outputs =
            self.0.batcher.try_out(&self.0.file, &layers, TRY_OUT_SIZE).map_err(|error| self.failed(error))?;
        self.check_shapes(&layers, TRY_OUT_SIZE, &outputs)
    }

    /// True if the model has all of these layers, joined by `+`, each once, or if they are its `global` vector.
    pub(super) fn has_layers(&self, layers: &str) -> bool {
        self.layers_or_global(Some(layers)).is_ok()
    }

    /// Builds the sessions of every engine for layers that the model has, runs each, and compares the shapes of the
    /// outputs with the manifest.
    fn warm_up_one(&self, warm_up: &WarmUpLayers) -> Result<(), OpenError> {
        let layers = LayerSet::new(warm_up.layers.split('+')).expect("layers that the model has, each once");
        let size = warm_up_size(warm_up.side_px.unwrap_or(self.manifest().default_side));
        let outputs = self.0.batcher.warm_up(&self.0.file, &layers, size).map_err(|error| self.failed(error))?;
        self.check_shapes(&layers, size, &outputs)
    }

    fn failed(&self, source: BatchError) -> OpenError {
        OpenError::WarmUp { path: self.0.file.path().to_path_buf(), source }
    }

    /// Compares the shapes of outputs for an input of this size with the manifest.
    fn check_shapes(&self, layers: &LayerSet, size: ImageSize, outputs: &[LayerOutput]) -> Result<(), OpenError> {
        for (name, output) in layers.names().iter().zip(outputs) {
            let found = [output.channels, output.height, output.width];
            let Some(expected) = self.expected_shape(name, size) else { continue };
            if found != expected {
                let reason = format!("its shape is {found:?}, and by the manifest {expected:?}");
                let error = BackendError::Output { layer: name.clone(), reason };
                return Err(self.failed(BatchError::Backend(Arc::new(error))));
            }
        }
        Ok(())
    }

    /// Names of all outputs: its layers, and `global` if it has that.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        let global = self.manifest().global.map(|_| GLOBAL);
        self.manifest().layers.iter().map(|layer| layer.name.as_str()).chain(global)
    }

    /// Channels, rows and columns of an output for an input of this size, by the manifest.
    pub fn expected_shape(&self, output: &str, input: ImageSize) -> Option<[usize; 3]> {
        if output == GLOBAL {
            return self.manifest().global.map(|length| [length as usize, 1, 1]);
        }
        let layer = self.manifest().layer(output)?;
        let grid = layer.grid(input);
        Some([layer.channels as usize, grid.height, grid.width])
    }
}

/// The size of the warm-up image: that of a request about a photograph of the commonest shape.
fn warm_up_size(side_px: u32) -> ImageSize {
    inference_size(ImageSize::LANDSCAPE_PHOTOGRAPH, side_px)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_has_the_size_of_a_request_about_a_photograph() {
        for side_px in 32..=2048 {
            for (width, height) in [(640, 480), (4032, 3024), (1600, 1200)] {
                let requested = inference_size(ImageSize { width, height }, side_px);
                assert_eq!(warm_up_size(side_px), requested, "{width} x {height} at side {side_px}");
            }
        }
    }
}
