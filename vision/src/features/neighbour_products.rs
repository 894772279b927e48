//! Dot products of neighbouring descriptors.
//!
//! The squared length of a blend of four descriptors is a quadratic form of the weights whose coefficients are the dot
//! products among the four. It takes a few multiplications for each position instead of a sum over all channels.

use std::cmp::Ordering;
use std::ops::{AddAssign, Mul};

use rayon::prelude::*;

use super::{FeatureMap, GridSize};

/// The dot products of every cell's descriptor with itself and with its neighbours', summed in the precision of `T`.
#[derive(Clone, Debug)]
pub(crate) struct NeighbourProducts<T> {
    grid: GridSize,
    /// For every cell, the products with itself and with the cells right, below left, below and below right of it.
    products: Vec<[T; NEIGHBOURS]>,
}

const NEIGHBOURS: usize = 5;
/// Cells a block: their sums stay in the first-level cache during the loop over the channels.
const BLOCK_CELLS: usize = 128;

impl<T> NeighbourProducts<T> {
    pub(crate) const BYTES_PER_CELL: usize = NEIGHBOURS * size_of::<T>();

    /// The map's cells.
    pub(crate) fn grid(&self) -> GridSize {
        self.grid
    }
}

impl<T: Copy + Default + From<f32> + Mul<Output = T> + AddAssign + Send + Sync> NeighbourProducts<T> {
    pub(crate) fn new(map: &FeatureMap) -> Self {
        let grid = map.grid();
        let cells = grid.cells();
        let offsets = [0, 1, grid.width.saturating_sub(1), grid.width, grid.width + 1];
        let mut products = vec![[T::default(); NEIGHBOURS]; cells];
        products.par_chunks_mut(BLOCK_CELLS).enumerate().for_each(|(block, products)| {
            let mut sums = [[T::default(); BLOCK_CELLS]; NEIGHBOURS];
            for channel in map.data().chunks_exact(cells) {
                let here = &channel[block * BLOCK_CELLS..];
                for (sums, offset) in sums.iter_mut().zip(offsets) {
                    let there = here.get(offset..).unwrap_or_default();
                    for ((sum, &one), &other) in sums.iter_mut().zip(here).zip(there) {
                        *sum += T::from(one) * T::from(other);
                    }
                }
            }
            for (index, products) in products.iter_mut().enumerate() {
                *products = sums.map(|sums| sums[index]);
            }
        });
        Self { grid, products }
    }

    /// The dot product of two cells, as `(row, column)`, that are the same or touch.
    pub(crate) fn product(&self, one: (usize, usize), other: (usize, usize)) -> T {
        let (first, second) = (one.min(other), one.max(other));
        let neighbour = match (second.0 - first.0, second.1.cmp(&first.1)) {
            (0, Ordering::Equal) => 0,
            (0, _) => 1,
            (_, Ordering::Less) => 2,
            (_, Ordering::Equal) => 3,
            (_, Ordering::Greater) => 4,
        };
        self.products[first.0 * self.grid.width + first.1][neighbour]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_equal_those_of_the_gram_matrix() {
        let data: Vec<f32> = (0..3 * 12).map(|i| ((i * i) as f32).sin()).collect();
        let map = FeatureMap::new(3, 3, 4, data).unwrap();
        let (single, double) = (NeighbourProducts::<f32>::new(&map), NeighbourProducts::<f64>::new(&map));
        let gram = map.matrix().t().dot(&map.matrix());
        for one in 0..12_usize {
            for other in 0..12_usize {
                let (a, b) = ((one / 4, one % 4), (other / 4, other % 4));
                if a.0.abs_diff(b.0) <= 1 && a.1.abs_diff(b.1) <= 1 {
                    assert!((single.product(a, b) - gram[[one, other]]).abs() < 1e-5, "{one} {other}");
                    assert!((double.product(a, b) - f64::from(gram[[one, other]])).abs() < 1e-5, "{one} {other}");
                }
            }
        }
    }
}
