//! Lookup of features by the id that a request sends instead of an image.

use std::sync::Arc;

use densecl_inference::registry::ServedModel;

use super::error::ServingError;
use super::service::Service;
use crate::cache::{CachedFeatures, EntryCheck, FeatureMismatch, MapsKind, Recipe};

/// Finds the features of an id.
///
/// # Errors
/// [`ServingError::UnknownFeatureId`] if the text is no id, the cache has no such entry, or its model is not served
/// now.
pub(crate) async fn find_known_features(service: &Service, text: &str) -> Result<Arc<CachedFeatures>, ServingError> {
    let unknown = || ServingError::UnknownFeatureId { id: text.chars().take(64).collect() };
    let id = text.parse().map_err(|_| unknown())?;
    let cache = service.cache().ok_or_else(unknown)?;
    let found = cache.find(id, MapsKind::Unit, is_served_here(service)).await.ok_or_else(unknown)?;
    if served_model(service, &found.key.recipe).is_none() { Err(unknown()) } else { Ok(found) }
}

/// Returns the check of a cache entry of another process: its model must be served here, with the same shapes.
pub(super) fn is_served_here(service: &Service) -> EntryCheck {
    let service = service.clone();
    Arc::new(move |features| {
        let model = served_model(&service, &features.key.recipe).ok_or(FeatureMismatch::Model)?;
        features.check_shapes(|layer, input| model.expected_shape(layer, input))
    })
}

/// The model of `recipe`, if one with the same digest is served.
fn served_model(service: &Service, recipe: &Recipe) -> Option<ServedModel> {
    let registry = service.registry().ok()?;
    let model = registry.find(Some(&recipe.model), Some(recipe.version)).ok()?;
    (*model.digest() == recipe.digest).then(|| model.clone())
}
