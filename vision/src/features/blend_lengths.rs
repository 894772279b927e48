//! Lengths of the descriptors that bilinear interpolation gives between the cells of a map.
//!
//! They are computed in double precision: where neighbouring descriptors point in opposite directions, which happens
//! with few components, a length is a difference of nearly equal numbers.

use super::sample_axis::SampleAxis;
use super::{AxisPosition, FeatureMap, NeighbourProducts};

/// The lengths of all bilinear blends of neighbouring descriptors, as a quadratic form of the weights.
#[derive(Clone, Debug)]
pub(super) struct BlendLengths(NeighbourProducts<f64>);

/// A blend whose squared length is below this has no direction.
const MIN_SQUARED_LENGTH: f64 = 1e-20;

impl BlendLengths {
    pub(super) const BYTES_PER_CELL: usize = NeighbourProducts::<f64>::BYTES_PER_CELL;

    pub(super) fn new(map: &FeatureMap) -> Self {
        Self(NeighbourProducts::new(map))
    }

    /// Writes the inverse lengths at the samples of `columns` from `first` on, in the row at `row`; 0 where a blend has no
    /// direction.
    pub(super) fn inverse_row(&self, columns: &SampleAxis, row: AxisPosition, first: usize, inverse: &mut [f32]) {
        let (above, below) = (f64::from(1.0 - row.fraction), f64::from(row.fraction));
        // The dot product of the row's blends in columns `a` and `b`.
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
            for (inverse, &fraction) in inverse[run.samples.clone()].iter_mut().zip(fractions) {
                let fraction = f64::from(fraction);
                let squared = left + fraction * (linear + fraction * square);
                *inverse = if squared > MIN_SQUARED_LENGTH { (1.0 / squared.sqrt()) as f32 } else { 0.0 };
            }
        });
    }
}
