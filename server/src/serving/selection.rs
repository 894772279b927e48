//! Selection of features: model, layers and image size.

use std::sync::Arc;

use densecl_inference::backend::LayerSet;
use densecl_inference::registry::ServedModel;
use densecl_models::GLOBAL;
use densecl_models::geometry::{CELL_MULTIPLE_PX, GridSize, inference_size};
use densecl_vision::image::ImageSize;

use super::error::ServingError;
use super::service::Service;
use crate::cache::Recipe;

const FLOAT_BYTES: u64 = 4;

/// Model, layer and side as a request names them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SelectionChoice<'a> {
    pub(crate) model: Option<&'a str>,
    pub(crate) version: Option<u32>,
    pub(crate) layer: Option<&'a str>,
    pub(crate) side: Option<u64>,
}

/// A served model, some of its layers or its `global` vector, and an image side within the limits.
#[derive(Clone)]
pub(crate) struct Selection {
    pub(crate) model: ServedModel,
    pub(crate) layers: LayerSet,
    pub(crate) side_px: u32,
}

impl Selection {
    /// Resolves `choice`, with the defaults of the model.
    ///
    /// # Errors
    /// If there is no such model, version or layer, or the side is out of range.
    pub(crate) fn resolve(service: &Service, choice: &SelectionChoice<'_>) -> Result<Self, ServingError> {
        let model = service.registry()?.find(choice.model, choice.version)?.clone();
        let layers = model.layers_or_global(choice.layer)?;
        let max_side_px = service.limits().max_side_px;
        // A server with a low limit still answers requests that name no side.
        let default = u64::from(model.manifest().default_side.min(max_side_px));
        let requested = choice.side.unwrap_or(default);
        let side_px = u32::try_from(requested).ok().filter(|side| (CELL_MULTIPLE_PX..=max_side_px).contains(side));
        let side_px = side_px.ok_or(ServingError::SideOutOfRange { side_px: requested, max_side_px })?;
        Ok(Self { model, layers, side_px })
    }

    /// Returns the selection that cached features were computed by.
    ///
    /// # Errors
    /// If its model is no longer served.
    pub(crate) fn from_recipe(service: &Service, recipe: &Recipe) -> Result<Self, ServingError> {
        let layer = recipe.layer_name();
        let choice = SelectionChoice {
            model: Some(&recipe.model),
            version: Some(recipe.version),
            layer: Some(&layer),
            side: Some(u64::from(recipe.side_px)),
        };
        Self::resolve(service, &choice)
    }

    /// Bytes of the model's input for an image of this size.
    pub(crate) fn input_bytes(&self, image: ImageSize) -> u64 {
        3 * inference_size(image, self.side_px).pixels()
    }

    /// Bytes of the layers of an image of this size, each at its own resolution.
    pub(crate) fn layers_bytes(&self, image: ImageSize) -> u64 {
        let values = |(channels, grid): (usize, GridSize)| channels as u64 * grid.cells() as u64;
        FLOAT_BYTES * self.expected_layers(image).map(values).sum::<u64>()
    }

    /// Bytes of the layers of an image of this size, stacked to one map.
    pub(crate) fn map_bytes(&self, image: ImageSize) -> u64 {
        let (channels, grid) = self.expected_map(image);
        FLOAT_BYTES * (channels as u64).saturating_mul(grid.cells() as u64)
    }

    /// Recipe of the features: all that they depend on beside the image.
    pub(crate) fn recipe(&self) -> Arc<Recipe> {
        Arc::new(Recipe {
            model: self.model.name().to_owned(),
            version: self.model.version(),
            digest: *self.model.digest(),
            layers: self.layers.clone(),
            side_px: self.side_px,
        })
    }

    /// True if this is the model's `global` vector: a map of one cell, which covers the whole image.
    pub(crate) fn is_global(&self) -> bool {
        self.layers.names() == [GLOBAL]
    }

    /// Names of the layers, joined by `+`.
    pub(crate) fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }

    /// Channels and grid of the stacked map of an image of this size, by the manifest.
    pub(crate) fn expected_map(&self, image: ImageSize) -> (usize, GridSize) {
        let channels = self.expected_layers(image).map(|(channels, _)| channels).sum();
        let finest = self.expected_layers(image).map(|(_, grid)| grid).max_by_key(|grid| grid.cells());
        (channels, finest.unwrap_or(GridSize { width: 1, height: 1 }))
    }

    /// Channels and grid of each layer of an image of this size, by the manifest.
    fn expected_layers(&self, image: ImageSize) -> impl Iterator<Item = (usize, GridSize)> {
        let input = inference_size(image, self.side_px);
        let shapes = self.layers.names().iter().filter_map(move |name| self.model.expected_shape(name, input));
        shapes.map(|[channels, height, width]| (channels, GridSize { width, height }))
    }
}
