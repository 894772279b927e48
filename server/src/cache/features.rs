//! What is kept of a picture.

use densecl_models::Layer;

use super::key::{FeatureId, FeatureKey};
use densecl_models::geometry::inference_size;
use densecl_vision::features::{FeatureMap, HypercolumnError, LayerScaling, NormalizedMap, hypercolumn};
use densecl_vision::image::ImageSize;

/// Features of a picture, and what they are features of. The picture itself is not here.
#[derive(Clone, Debug, PartialEq)]
pub struct CachedFeatures {
    /// What they are.
    pub key: FeatureKey,
    /// Size of the upright picture.
    pub image: ImageSize,
    /// The values.
    pub maps: Maps,
}

/// The forms that features are kept in.
#[derive(Clone, Debug, PartialEq)]
pub enum Maps {
    /// The layers as the model computes them, in the key's order, each at its own resolution.
    Layers(Vec<FeatureMap>),
    /// All layers as one map of unit descriptors, ready to be matched: dearer to keep, and free to use.
    Unit(NormalizedMap),
}

/// Names a form of [`Maps`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// [`Maps::Layers`].
    Layers,
    /// [`Maps::Unit`].
    Unit,
}

/// Features that are not what their key and the model's manifest promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Of a model that is not served here, or whose file is another.
    #[error("they are of a model that is not served here")]
    Model,
    /// Channels or cells are not those of the manifest's layers.
    #[error("their shapes are not those of the model's layers")]
    Shape,
}

impl CachedFeatures {
    /// Their name.
    pub fn id(&self) -> FeatureId {
        self.key.id()
    }

    /// The form that they are in.
    pub fn form(&self) -> Form {
        match self.maps {
            Maps::Layers(_) => Form::Layers,
            Maps::Unit(_) => Form::Unit,
        }
    }

    /// The layers as one map of unit descriptors, every layer with the same say.
    ///
    /// # Errors
    /// If there are no layers.
    pub fn unit_map(&self) -> Result<NormalizedMap, HypercolumnError> {
        match &self.maps {
            Maps::Layers(layers) => Ok(hypercolumn(layers.clone(), LayerScaling::Unit)?.into_normalized()),
            Maps::Unit(map) => Ok(map.clone()),
        }
    }

    /// The layers as one map of the values that the model computes; `None` if only unit descriptors are here.
    ///
    /// # Errors
    /// If there are no layers.
    pub fn raw_map(&self) -> Result<Option<FeatureMap>, HypercolumnError> {
        match &self.maps {
            Maps::Layers(layers) => hypercolumn(layers.clone(), LayerScaling::AsIs).map(Some),
            Maps::Unit(_) => Ok(None),
        }
    }

    /// The same as [`Form::Unit`].
    ///
    /// # Errors
    /// If there are no layers.
    pub fn to_unit(&self) -> Result<Self, HypercolumnError> {
        Ok(Self { key: self.key.clone(), image: self.image, maps: Maps::Unit(self.unit_map()?) })
    }

    /// The memory that they take, with what names and surrounds them.
    pub fn bytes(&self) -> usize {
        /// Of the cache's own structures: hash table, order of use, counters.
        const BOOKKEEPING_BYTES: usize = 512;
        let recipe = &self.key.recipe;
        let names: usize = recipe.layers.names().iter().map(|name| name.capacity() + size_of::<String>()).sum();
        let values: usize = match &self.maps {
            Maps::Layers(layers) => layers.iter().map(|layer| layer.bytes() + size_of::<FeatureMap>()).sum(),
            Maps::Unit(map) => map.bytes(),
        };
        values + names + recipe.model.capacity() + size_of::<Self>() + BOOKKEEPING_BYTES
    }

    /// Holds layers against the model's `layers`: channels, and the cells that a picture of this size has.
    ///
    /// # Errors
    /// [`Unfit::Shape`] if they differ.
    pub fn check_shapes(&self, layers: &[Layer]) -> Result<(), Unfit> {
        let Maps::Layers(maps) = &self.maps else { return Err(Unfit::Shape) };
        let names = self.key.recipe.layers.names();
        let input = inference_size(self.image, self.key.recipe.side_px);
        let fits = |(name, map): (&String, &FeatureMap)| {
            layers
                .iter()
                .find(|layer| layer.name == *name)
                .is_some_and(|layer| (map.channels(), map.grid()) == (layer.channels as usize, layer.grid(input)))
        };
        let fit = names.len() == maps.len() && names.iter().zip(maps).all(fits);
        if fit { Ok(()) } else { Err(Unfit::Shape) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::super::key::tests::recipe;
    use super::*;

    /// Of a picture of 64 × 48, which the model sees as 64 × 64 (halves round up).
    pub(crate) fn features(file: &[u8]) -> CachedFeatures {
        let map = |channels: usize, side: usize| {
            let data = (0..channels * side * side).map(|index| index as f32 - 3.5).collect();
            FeatureMap::new(channels, side, side, data).unwrap()
        };
        CachedFeatures {
            key: FeatureKey::of(file, Arc::new(recipe())),
            image: ImageSize { width: 64, height: 48 },
            maps: Maps::Layers(vec![map(3, 4), map(2, 2)]),
        }
    }

    #[test]
    fn the_values_weigh_what_they_take_and_little_else() {
        let features = features(b"a");
        let values = (3 * 16 + 2 * 4) * 4;
        assert!((values..values + 2048).contains(&features.bytes()), "{}", features.bytes());
        let unit = features.to_unit().unwrap();
        // With the dot products of every cell with five neighbours.
        let values = (5 * 16 + 5 * 16) * 4;
        assert!((values..values + 2048).contains(&unit.bytes()), "{}", unit.bytes());
    }

    #[test]
    fn both_forms_give_the_same_unit_map() {
        let features = features(b"a");
        let unit = features.to_unit().unwrap();
        assert_eq!((unit.form(), unit.id()), (Form::Unit, features.id()));
        assert_eq!(unit.unit_map().unwrap(), features.unit_map().unwrap());
        assert_eq!(unit.raw_map(), Ok(None));
        assert_eq!(features.raw_map().unwrap().unwrap().channels(), 5);
    }

    #[test]
    fn shapes_are_the_manifests() {
        let layer = |name: &str, channels, stride| Layer { name: name.to_owned(), channels, stride };
        let check = |layers: &[Layer]| features(b"a").check_shapes(layers);
        assert_eq!(check(&[layer("res5", 2, 32), layer("res4", 3, 16)]), Ok(()));
        assert_eq!(check(&[layer("res4", 3, 16)]), Err(Unfit::Shape));
        assert_eq!(check(&[layer("res4", 3, 16), layer("res5", 3, 32)]), Err(Unfit::Shape));
        assert_eq!(check(&[layer("res4", 3, 8), layer("res5", 2, 32)]), Err(Unfit::Shape));
    }
}
