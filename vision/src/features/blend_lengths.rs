//! How long descriptors are between the cells of a map.
//!
//! In double precision, because a length is a difference of nearly equal numbers where neighbours point in opposite
//! directions, as they do with few components.

use super::interpolated::{Axis, Place};
use super::{FeatureMap, NeighbourProducts};

/// The lengths of all blends of neighbouring cells.
#[derive(Clone, Debug)]
pub(super) struct BlendLengths(NeighbourProducts<f64>);

/// A blend whose squared length is below this has no direction.
const NO_LENGTH: f64 = 1e-20;

impl BlendLengths {
    pub(super) const BYTES_PER_CELL: usize = NeighbourProducts::<f64>::BYTES_PER_CELL;

    pub(super) fn of(map: &FeatureMap) -> Self {
        Self(NeighbourProducts::of(map))
    }

    /// Writes 1 / length of the blends at the places `first` and on of `columns`, in the row `row`; 0 where a blend has
    /// no length.
    pub(super) fn inverse_row(&self, columns: &Axis, row: Place, first: usize, inverse: &mut [f32]) {
        let (above, below) = (f64::from(1.0 - row.fraction), f64::from(row.fraction));
        // Of the blends of the row's two cells in columns `a` and `b`.
        let product = |a: usize, b: usize| {
            let across =
                self.0.product((row.before, a), (row.after, b)) + self.0.product((row.after, a), (row.before, b));
            above * above * self.0.product((row.before, a), (row.before, b))
                + above * below * across
                + below * below * self.0.product((row.after, a), (row.after, b))
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
