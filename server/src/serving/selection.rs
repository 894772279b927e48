//! Selection of features: model, layers and image size.

use std::sync::Arc;

use densecl_inference::backend::LayerSet;
use densecl_inference::registry::ServedModel;
use densecl_models::Layer;
use densecl_models::geometry::{CELL_MULTIPLE_PX, GridSize, grid, inference_size};
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

/// A served model, some of its layers, and an image side within the limits.
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
        let layers = model.layers(choice.layer)?;
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
        let input = inference_size(image, self.side_px);
        let values = |layer: &Layer| u64::from(layer.channels) * layer.grid(input).cells() as u64;
        FLOAT_BYTES * self.manifest_layers().map(values).sum::<u64>()
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

    /// Names of the layers, joined by `+`.
    pub(crate) fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }

    /// Channels and grid of the stacked map of an image of this size, by the manifest.
    pub(crate) fn expected_map(&self, image: ImageSize) -> (usize, GridSize) {
        let channels = self.manifest_layers().map(|layer| layer.channels as usize).sum();
        let finest = self.manifest_layers().map(|layer| layer.stride).min().unwrap_or(1).max(1);
        (channels, grid(inference_size(image, self.side_px), finest))
    }

    fn manifest_layers(&self) -> impl Iterator<Item = &Layer> {
        self.layers.names().iter().filter_map(|name| self.model.manifest().layer(name))
    }
}
