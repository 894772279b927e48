//! Features of one image, as the cache stores them.

use super::key::{FeatureId, FeatureKey};
use densecl_models::geometry::inference_size;
use densecl_vision::features::{FeatureMap, HypercolumnError, LayerScaling, Layout, NormalizedMap, hypercolumn};
use densecl_vision::image::ImageSize;

/// Features of one image and their key. The image itself is not stored.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedFeatures {
    /// Image and computation that they come from.
    pub key: FeatureKey,
    /// Size of the upright image.
    pub image: ImageSize,
    /// The values.
    pub maps: CachedMaps,
}

/// Feature maps, in one of two kinds.
#[derive(Clone, Debug, PartialEq)]
pub enum CachedMaps {
    /// The layers as the model computes them, in the key's order, each `[C, H, W]` at its own resolution; its `global`
    /// vector is `[D, 1, 1]`.
    Layers(Vec<FeatureMap>),
    /// All layers as one map of unit descriptors, ready for matching: larger, but needs no more work.
    Unit(NormalizedMap),
}

/// Kind of [`CachedMaps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapsKind {
    /// [`CachedMaps::Layers`].
    Layers,
    /// [`CachedMaps::Unit`].
    Unit,
}

/// Features that do not fit their key and the model's manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeatureMismatch {
    /// The model is not served here, or its file is another.
    #[error("they are of a model that is not served here")]
    Model,
    /// Channels or cells differ from the manifest's layers.
    #[error("their shapes are not those of the model's layers")]
    Shape,
}

impl CachedFeatures {
    /// Id of the key.
    pub fn id(&self) -> FeatureId {
        self.key.id()
    }

    /// Kind of the maps.
    pub fn kind(&self) -> MapsKind {
        match self.maps {
            CachedMaps::Layers(_) => MapsKind::Layers,
            CachedMaps::Unit(_) => MapsKind::Unit,
        }
    }

    /// Joins the layers to one map of unit descriptors, in which every layer has the same weight.
    ///
    /// # Errors
    /// If there are no layers.
    pub fn unit_map(&self) -> Result<NormalizedMap, HypercolumnError> {
        match &self.maps {
            CachedMaps::Layers(layers) => Ok(hypercolumn(layers.clone(), LayerScaling::Unit)?.into_normalized()),
            CachedMaps::Unit(map) => Ok(map.clone()),
        }
    }

    /// Joins the layers to one map of the values that the model computes; `None` if only unit descriptors are stored.
    ///
    /// # Errors
    /// If there are no layers.
    pub fn raw_map(&self) -> Result<Option<FeatureMap>, HypercolumnError> {
        match &self.maps {
            CachedMaps::Layers(layers) => hypercolumn(layers.clone(), LayerScaling::AsIs).map(Some),
            CachedMaps::Unit(_) => Ok(None),
        }
    }

    /// Converts to [`MapsKind::Unit`].
    ///
    /// # Errors
    /// If there are no layers.
    pub fn to_unit(&self) -> Result<Self, HypercolumnError> {
        Ok(Self { key: self.key.clone(), image: self.image, maps: CachedMaps::Unit(self.unit_map()?) })
    }

    /// Memory that an entry takes, with its key and the cache's own structures.
    pub fn bytes(&self) -> usize {
        /// For the hash table, the order of use and the counters.
        const BOOKKEEPING_BYTES: usize = 512;
        let recipe = &self.key.recipe;
        let names: usize = recipe.layers.names().iter().map(|name| name.capacity() + size_of::<String>()).sum();
        let values: usize = match &self.maps {
            CachedMaps::Layers(layers) => layers.iter().map(|layer| layer.bytes() + size_of::<FeatureMap>()).sum(),
            CachedMaps::Unit(map) => map.bytes(),
        };
        values + names + recipe.model.capacity() + size_of::<Self>() + BOOKKEEPING_BYTES
    }

    /// Compares the maps with what the model computes: `expected_shape` gives channels, rows and columns of a layer for an
    /// input of a size.
    ///
    /// # Errors
    /// [`FeatureMismatch::Shape`] if they differ.
    pub fn check_shapes(
        &self,
        expected_shape: impl Fn(&str, ImageSize) -> Option<[usize; 3]>,
    ) -> Result<(), FeatureMismatch> {
        let CachedMaps::Layers(maps) = &self.maps else { return Err(FeatureMismatch::Shape) };
        let names = self.key.recipe.layers.names();
        let input = inference_size(self.image, self.key.recipe.side_px);
        let fits = |(name, map): (&String, &FeatureMap)| expected_shape(name, input) == Some(map.shape(Layout::Chw));
        let fit = names.len() == maps.len() && names.iter().zip(maps).all(fits);
        if fit { Ok(()) } else { Err(FeatureMismatch::Shape) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::super::key::tests::recipe;
    use super::*;

    /// Features of an image of 64 × 48 pixels, which the model sees as 64 × 64 (halves round up).
    pub(crate) fn features(file: &[u8]) -> CachedFeatures {
        let map = |channels: usize, side: usize| {
            let data = (0..channels * side * side).map(|index| index as f32 - 3.5).collect();
            FeatureMap::new(channels, side, side, data).unwrap()
        };
        CachedFeatures {
            key: FeatureKey::from_file(file, Arc::new(recipe())),
            image: ImageSize { width: 64, height: 48 },
            maps: CachedMaps::Layers(vec![map(3, 4), map(2, 2)]),
        }
    }

    #[test]
    fn an_entry_takes_little_more_memory_than_its_values() {
        let features = features(b"a");
        let values = (3 * 16 + 2 * 4) * 4;
        assert!((values..values + 2048).contains(&features.bytes()), "{}", features.bytes());
        let unit = features.to_unit().unwrap();
        // With the dot products of every cell with five neighbours.
        let values = (5 * 16 + 5 * 16) * 4;
        assert!((values..values + 2048).contains(&unit.bytes()), "{}", unit.bytes());
    }

    #[test]
    fn both_kinds_give_the_same_unit_map() {
        let features = features(b"a");
        let unit = features.to_unit().unwrap();
        assert_eq!((unit.kind(), unit.id()), (MapsKind::Unit, features.id()));
        assert_eq!(unit.unit_map().unwrap(), features.unit_map().unwrap());
        assert_eq!(unit.raw_map(), Ok(None));
        assert_eq!(features.raw_map().unwrap().unwrap().channels(), 5);
    }

    #[test]
    fn shapes_must_be_those_of_the_manifest() {
        let check = |shapes: &[(&str, [usize; 3])]| {
            features(b"a").check_shapes(|name, input| {
                assert_eq!(input, ImageSize { width: 64, height: 64 });
                shapes.iter().find(|(layer, _)| *layer == name).map(|(_, shape)| *shape)
            })
        };
        assert_eq!(check(&[("res5", [2, 2, 2]), ("res4", [3, 4, 4])]), Ok(()));
        assert_eq!(check(&[("res4", [3, 4, 4])]), Err(FeatureMismatch::Shape));
        assert_eq!(check(&[("res4", [3, 4, 4]), ("res5", [3, 2, 2])]), Err(FeatureMismatch::Shape));
        assert_eq!(check(&[("res4", [3, 8, 8]), ("res5", [2, 2, 2])]), Err(FeatureMismatch::Shape));
    }
}
