//! One version of a model, ready to run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use densecl_models::geometry::{ImageSize, inference_size};
use densecl_models::repository::ModelVersion;
use densecl_models::{GLOBAL, Layer, Manifest};

use super::failure::{LookupError, OpenError};
use super::listed;
use super::rehearsal::Rehearsal;
use crate::batch::{BatchError, BatchReply, BatchRequest, Batcher, LayerOutput};
use crate::engine::{EngineError, LayerSet, ModelFile};

/// What a model is tried out on: coarse layers have several cells, and different ones along x and y.
const TRIED_SIZE: ImageSize = ImageSize { width: 96, height: 64 };

/// One version of a model, ready to run. When the last clone is dropped, and nobody can ask for it
/// any more, the engines forget its sessions.
#[derive(Clone)]
pub struct ServedModel(Arc<Loaded>);

struct Loaded {
    file: ModelFile,
    batcher: Batcher,
    /// Whether the engines have sessions for what is usually asked for.
    is_warm: AtomicBool,
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.batcher.forget(self.file.id());
    }
}

/// An image at the size that the model is to see.
#[derive(Clone, Debug)]
pub struct ModelInput {
    /// In pixels, a multiple of the coarsest stride.
    pub height: usize,
    /// In pixels, a multiple of the coarsest stride.
    pub width: usize,
    /// RGB bytes, `[height, width, 3]`.
    pub rgb: Vec<u8>,
}

impl ServedModel {
    pub(super) fn open(found: &ModelVersion, batcher: &Batcher) -> Result<Self, OpenError> {
        let ModelVersion { name, version, path } = found;
        let file = ModelFile::open(name, *version, path);
        let file = file.map_err(|source| OpenError::Model { path: path.clone(), source })?;
        Ok(Self(Arc::new(Loaded { file, batcher: batcher.clone(), is_warm: AtomicBool::new(false) })))
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

    /// What it says of itself.
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
                    known: listed(self.manifest().layers.iter().map(|Layer { name, .. }| name)),
                });
            }
        }
        LayerSet::new(joined.split('+')).ok_or_else(|| LookupError::RepeatedLayer { layers: joined.to_owned() })
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

    /// As [`ServedModel::run`], for threads that may wait.
    ///
    /// # Errors
    /// As for [`ServedModel::run`].
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
        BatchRequest { model: self.0.file.clone(), layers, height, width, rgb, deadline }
    }

    /// Whether both answer alike.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.digest() == other.digest()
    }

    /// Runs the default layer at the default side, and those of `rehearsals` that it has; once.
    pub(super) fn warm_up(&self, rehearsals: &[Rehearsal]) -> Result<(), OpenError> {
        if self.0.is_warm.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.try_out()?;
        self.rehearse(&Rehearsal { layers: self.manifest().default_layer.clone(), side_px: None })?;
        rehearsals.iter().filter(|rehearsal| self.has(rehearsal)).try_for_each(|rehearsal| self.rehearse(rehearsal))?;
        self.0.is_warm.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Runs all outputs of a model from elsewhere, and holds them against its manifest: the trainer
    /// does so before there is a file.
    fn try_out(&self) -> Result<(), OpenError> {
        let Manifest { training, fidelity, .. } = self.manifest();
        if training.is_some() || fidelity.is_some() {
            return Ok(());
        }
        let layers = LayerSet::new(self.outputs()).expect("a manifest has layers, each once");
        let outputs = self.0.batcher.try_out(&self.0.file, &layers, TRIED_SIZE).map_err(|error| self.failed(error))?;
        self.check(&layers, TRIED_SIZE, &outputs)
    }

    pub(super) fn has(&self, rehearsal: &Rehearsal) -> bool {
        self.layers(Some(&rehearsal.layers)).is_ok()
    }

    /// Builds the sessions of every engine for layers that the model has, runs each, and holds what
    /// comes out against the manifest.
    fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), OpenError> {
        let layers = LayerSet::new(rehearsal.layers.split('+')).expect("layers that the model has, each once");
        // The size that a request about the commonest photograph has.
        let side_px = rehearsal.side_px.unwrap_or(self.manifest().default_side);
        let size = inference_size(ImageSize::LANDSCAPE_PHOTOGRAPH, side_px);
        let outputs = self.0.batcher.warm_up(&self.0.file, &layers, size).map_err(|error| self.failed(error))?;
        self.check(&layers, size, &outputs)
    }

    fn failed(&self, source: BatchError) -> OpenError {
        OpenError::WarmUp { path: self.0.file.path().to_path_buf(), source }
    }

    /// Whether these outputs for an input of this size are what the manifest promises.
    fn check(&self, layers: &LayerSet, size: ImageSize, outputs: &[LayerOutput]) -> Result<(), OpenError> {
        for (name, output) in layers.names().iter().zip(outputs) {
            let found = [output.channels, output.height, output.width];
            let Some(expected) = self.expected_shape(name, size) else { continue };
            if found != expected {
                let reason = format!("its shape is {found:?}, and by the manifest {expected:?}");
                let error = EngineError::Output { layer: name.clone(), reason };
                return Err(self.failed(BatchError::Engine(Arc::new(error))));
            }
        }
        Ok(())
    }

    /// Names of all that it computes: its layers, and `global` if it has that.
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
