//! Feature maps whose descriptors have unit length.

use std::sync::{Arc, OnceLock};

use rayon::prelude::*;

use super::FeatureMap;
use super::feature_map::inverse_length;
use super::neighbour_products::NeighbourProducts;

/// A feature map whose descriptors have length 1, or 0, so that a dot product is a cosine similarity. Clones share their
/// values.
#[derive(Clone, Debug)]
pub struct NormalizedMap {
    map: FeatureMap,
    /// Computed at the first use, once for all clones.
    products: Arc<OnceLock<NeighbourProducts<f32>>>,
}

impl NormalizedMap {
    /// The map.
    pub fn map(&self) -> &FeatureMap {
        &self.map
    }

    /// The map, without the products of neighbours.
    pub fn into_map(self) -> FeatureMap {
        self.map
    }

    /// The dot products of neighbouring descriptors.
    pub(crate) fn neighbour_products(&self) -> &NeighbourProducts<f32> {
        self.products.get_or_init(|| NeighbourProducts::new(&self.map))
    }

    /// Memory that the values and the dot products of neighbours take, in bytes. The latter count even before their first
    /// use.
    pub fn bytes(&self) -> usize {
        self.map.bytes() + self.map.grid().cells() * NeighbourProducts::<f32>::BYTES_PER_CELL
    }
}

impl PartialEq for NormalizedMap {
    fn eq(&self, other: &Self) -> bool {
        self.map == other.map
    }
}

impl std::ops::Deref for NormalizedMap {
    type Target = FeatureMap;

    fn deref(&self) -> &FeatureMap {
        &self.map
    }
}

impl FeatureMap {
    /// The map with every descriptor scaled to length 1. A descriptor of zeros, or with values that are not finite,
    /// becomes zeros, whose similarity to anything is 0. Copies the values if the map has clones.
    pub fn into_normalized(mut self) -> NormalizedMap {
        let cells = self.grid().cells();
        let mut squares = vec![0.0_f32; cells];
        for channel in self.data().chunks_exact(cells) {
            for (sum, &value) in squares.iter_mut().zip(channel) {
                *sum += value * value;
            }
        }
        let inverse: Vec<f32> = squares.iter().map(|&sum| inverse_length(sum)).collect();
        self.values_mut().par_chunks_exact_mut(cells).for_each(|channel| {
            for (value, &scale) in channel.iter_mut().zip(&inverse) {
                // A product alone would make NaN of infinity times zero.
                *value = if scale == 0.0 { 0.0 } else { *value * scale };
            }
        });
        NormalizedMap { map: self, products: Arc::default() }
    }
}
