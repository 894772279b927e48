//! Features for callers that may block, such as the evaluation, by the code that serves requests.

use std::time::{Duration, Instant};

use densecl_inference::backend::LayerSet;
use densecl_inference::batch::{BatchError, LayerOutput};
use densecl_inference::registry::{LookupError, ModelInput, Registry, ServedModel};
use densecl_models::geometry::{CELL_MULTIPLE_PX, inference_size};
use densecl_vision::features::{FeatureMap, HypercolumnError, LayerScaling, ShapeError, hypercolumn};
use densecl_vision::image::{ImageSize, ResizeError, RgbImage, resize};

/// An image at the input size of the model, as the model takes it.
pub(super) fn model_input(resized: RgbImage) -> ModelInput {
    let (width, height) = resized.dimensions();
    ModelInput { height: height as usize, width: width as usize, rgb: resized.into_raw() }
}

/// Stacks the layers of one image to one map.
fn stack(layers: Vec<LayerOutput>, scaling: LayerScaling) -> Result<FeatureMap, ExtractorError> {
    let maps = layers.into_iter().map(|layer| FeatureMap::new(layer.channels, layer.height, layer.width, layer.data));
    Ok(hypercolumn(maps.collect::<Result<_, _>>()?, scaling)?)
}

/// Features could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum ExtractorError {
    /// The model or layer does not exist.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The image cannot be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// The model could not be run.
    #[error(transparent)]
    Run(#[from] BatchError),
    /// The model's output is not a map.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// No layers.
    #[error(transparent)]
    Hypercolumn(#[from] HypercolumnError),
}

/// Computes features of images as the server does, for callers that may block.
pub struct FeatureExtractor {
    model: ServedModel,
    layers: LayerSet,
    side_px: u32,
}

impl FeatureExtractor {
    /// Time for one image. No client waits, so it is longer than any image needs.
    const TIMEOUT: Duration = Duration::from_mins(10);

    /// Creates an extractor of `model` (the first if `None`), `layer` and `side_px` (the manifest's if `None`).
    ///
    /// # Errors
    /// If there is no such model or layer.
    pub fn new(
        registry: &Registry,
        model: Option<&str>,
        layer: Option<&str>,
        side_px: Option<u32>,
    ) -> Result<Self, LookupError> {
        let model = registry.find(model, None)?.clone();
        let layers = model.layers(layer)?;
        let side_px = side_px.unwrap_or(model.manifest().default_side).max(CELL_MULTIPLE_PX);
        Ok(Self { model, layers, side_px })
    }

    /// The model whose features these are.
    pub fn model(&self) -> &ServedModel {
        &self.model
    }

    /// The layers, joined by `+`.
    pub fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }

    /// Pixels per cell of the resized image.
    pub fn stride_px(&self) -> u32 {
        let manifest = self.model.manifest();
        let strides = self.layers.names().iter().filter_map(|name| Some(manifest.layer(name)?.stride));
        // The set has at least one layer, and all are in the manifest.
        strides.min().unwrap_or(CELL_MULTIPLE_PX)
    }

    /// The longer side that images are resized to.
    pub fn side_px(&self) -> u32 {
        self.side_px
    }

    /// The features that `/correspondence` would match: each layer scaled to unit length, stacked.
    ///
    /// # Errors
    /// If the image is empty or the model fails.
    pub fn extract(&self, image: &RgbImage) -> Result<FeatureMap, ExtractorError> {
        let size = inference_size(ImageSize::from(image.dimensions()), self.side_px);
        let input = model_input(resize(image, size)?);
        let reply = self.model.run_blocking(input, self.layers.clone(), Instant::now() + Self::TIMEOUT)?;
        stack(reply.layers, LayerScaling::Unit)
    }
}
