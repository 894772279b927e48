//! How long descriptors are between the cells of a map.
//!
//! The square of the length of a blend of four cells is a quadratic form of the weights, whose coefficients are the
//! dot products among the four: a few multiplications per place instead of a sum over all channels. In double
//! precision, because it is a difference of nearly equal numbers where neighbours point in opposite directions, as
//! they do with few components.

use std::cmp::Ordering;

use rayon::prelude::*;

use super::interpolated::{Axis, Place};
use super::{FeatureMap, GridSize};

/// The dot products of every cell's descriptor with itself and its neighbours.
#[derive(Clone, Debug)]
pub(super) struct BlendLengths {
    grid: GridSize,
    /// Of every cell with itself and with the cells right, below left, below and below right of it.
    products: Vec<[f64; NEIGHBOURS]>,
}

const NEIGHBOURS: usize = 5;
/// Cells whose sums stay in the nearest cache while the channels go by.
const BLOCK_CELLS: usize = 128;
/// A blend whose squared length is below this has no direction.
const NO_LENGTH: f64 = 1e-20;

impl BlendLengths {
    pub(super) const BYTES_PER_CELL: usize = NEIGHBOURS * size_of::<f64>();

    pub(super) fn of(map: &FeatureMap) -> Self {
        let grid = map.grid();
        let cells = grid.cells();
        let offsets = [0, 1, grid.width.saturating_sub(1), grid.width, grid.width + 1];
        let mut products = vec![[0.0_f64; NEIGHBOURS]; cells];
        products.par_chunks_mut(BLOCK_CELLS).enumerate().for_each(|(block, products)| {
            let mut sums = [[0.0_f64; BLOCK_CELLS]; NEIGHBOURS];
            for channel in map.data().chunks_exact(cells) {
                let here = &channel[block * BLOCK_CELLS..];
                for (sums, offset) in sums.iter_mut().zip(offsets) {
                    let there = here.get(offset..).unwrap_or_default();
                    for ((sum, &one), &other) in sums.iter_mut().zip(here).zip(there) {
                        *sum += f64::from(one) * f64::from(other);
                    }
                }
            }
            for (index, products) in products.iter_mut().enumerate() {
                *products = sums.map(|sums| sums[index]);
            }
        });
        Self { grid, products }
    }

    /// The dot product of two cells that are the same or touch.
    fn product(&self, (row, column): (usize, usize), (other_row, other_column): (usize, usize)) -> f64 {
        let (first, second) =
            ((row, column).min((other_row, other_column)), (row, column).max((other_row, other_column)));
        let neighbour = match (second.0 - first.0, second.1.cmp(&first.1)) {
            (0, Ordering::Equal) => 0,
            (0, _) => 1,
            (_, Ordering::Less) => 2,
            (_, Ordering::Equal) => 3,
            (_, Ordering::Greater) => 4,
        };
        self.products[first.0 * self.grid.width + first.1][neighbour]
    }

    /// Writes 1 / length of the blends at the places `first` and on of `columns`, in the row `row`; 0 where a blend has
    /// no length.
    pub(super) fn inverse_row(&self, columns: &Axis, row: Place, first: usize, inverse: &mut [f32]) {
        let (above, below) = (f64::from(1.0 - row.fraction), f64::from(row.fraction));
        // Of the blends of the row's two cells in columns `a` and `b`.
        let product = |a: usize, b: usize| {
            let across = self.product((row.before, a), (row.after, b)) + self.product((row.after, a), (row.before, b));
            above * above * self.product((row.before, a), (row.before, b))
                + above * below * across
                + below * below * self.product((row.after, a), (row.after, b))
        };
        columns.for_each_run(first, inverse.len(), |run, fractions| {
            let left = product(run.before, run.before);
            let both = product(run.before, run.after);
            let right = product(run.after, run.after);
            // (1 − f)²·left + 2·(1 − f)·f·both + f²·right
            let (linear, square) = (2.0 * (both - left), left - 2.0 * both + right);
            for (inverse, &fraction) in inverse[run.places.clone()].iter_mut().zip(fractions) {
                let fraction = f64::from(fraction);
                let squared = left + fraction * (linear + fraction * square);
                *inverse = if squared > NO_LENGTH { (1.0 / squared.sqrt()) as f32 } else { 0.0 };
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_neighbours() {
        let data: Vec<f32> = (0..3 * 12).map(|i| ((i * i) as f32).sin()).collect();
        let map = FeatureMap::new(3, 3, 4, data).unwrap();
        let lengths = BlendLengths::of(&map);
        let gram = map.matrix().t().dot(&map.matrix());
        for one in 0..12_usize {
            for other in 0..12_usize {
                if (one % 4).abs_diff(other % 4) <= 1 && (one / 4).abs_diff(other / 4) <= 1 {
                    let product = lengths.product((one / 4, one % 4), (other / 4, other % 4));
                    assert!((product - f64::from(gram[[one, other]])).abs() < 1e-5, "{one} {other}");
                }
            }
        }
    }
}
