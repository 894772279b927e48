//! Principal components of a map.
//!
//! Subspace iteration with Rayleigh-Ritz (Golub and Van Loan, *Matrix Computations*, 8.2.4 and 8.3) on the centred
//! descriptors themselves: the `C × C` covariance is never formed, so a few components of a map with thousands of
//! channels take milliseconds. Asking for hundreds is right but slow.

use ndarray::{Array1, Array2, ArrayView1, Axis, s};

use super::FeatureMap;
use super::symmetric_eigen::symmetric_eigen;

/// Directions more than are asked for, which make the iteration converge in few steps.
const OVERSAMPLING: usize = 8;
const MAX_ITERATIONS: usize = 60;
/// The iteration ends when no variance asked for changes by more than this, relative to the largest.
const TOLERANCE: f64 = 1e-6;

/// Why components could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentsError {
    /// Asked for none, or for more than there are channels.
    #[error("components must be within 1 to {channels}, the number of channels, not {asked}")]
    Count {
        /// What was asked for.
        asked: usize,
        /// The map's channels.
        channels: usize,
    },
}

/// The directions of a map's largest variance.
#[derive(Clone, Debug)]
pub struct PrincipalComponents {
    mean: Array1<f32>,
    /// One component a row, `[K, C]`.
    directions: Array2<f32>,
    variances: Vec<f32>,
}

impl PrincipalComponents {
    /// The first `count` components of `map`'s descriptors, by falling variance. Each has length 1 and its entry of
    /// largest magnitude positive, so that the same map always gives the same components.
    ///
    /// # Errors
    /// [`ComponentsError::Count`] unless `1 <= count <= channels`.
    #[expect(clippy::missing_panics_doc, reason = "a map has at least one cell")]
    pub fn of(map: &FeatureMap, count: usize) -> Result<Self, ComponentsError> {
        let channels = map.channels();
        if !(1..=channels).contains(&count) {
            return Err(ComponentsError::Count { asked: count, channels });
        }
        // Values that are not finite would make everything NaN; they count as 0.
        let mut centred = map.matrix().mapv(|value| if value.is_finite() { value } else { 0.0 }); // [C, N]
        let mean = centred.mean_axis(Axis(1)).expect("a map has cells"); // [C]
        centred -= &mean.view().insert_axis(Axis(1));

        let (basis, variances) = leading_subspace(&centred, count);
        let mut directions = basis.slice_move(s![.., ..count]).reversed_axes(); // [K, C]
        for mut direction in directions.rows_mut() {
            if has_negative_peak(&direction.view()) {
                direction.mapv_inplace(|value| -value);
            }
        }
        let variances = variances.iter().take(count).map(|&variance| variance as f32).collect();
        Ok(Self { mean, directions, variances })
    }

    /// The variance along each component, falling.
    pub fn variances(&self) -> &[f32] {
        &self.variances
    }

    /// `map` relative to the mean and projected on the components: `[count, H, W]`. Nothing if the map has other
    /// channels than the one the components are of.
    pub fn project(&self, map: &FeatureMap) -> Option<FeatureMap> {
        if map.channels() != self.mean.len() {
            return None;
        }
        let offsets = self.directions.dot(&self.mean); // [K]
        let projected = self.directions.dot(&map.matrix()) - &offsets.insert_axis(Axis(1)); // [K, N]
        let grid = map.grid();
        let data = projected.as_standard_layout().iter().copied().collect();
        FeatureMap::new(self.directions.nrows(), grid.height, grid.width, data).ok()
    }
}

/// Whether the entry of largest magnitude (the first of equals) is below zero.
fn has_negative_peak(direction: &ArrayView1<'_, f32>) -> bool {
    let peak = direction.iter().fold(0.0_f32, |peak, &value| if value.abs() > peak.abs() { value } else { peak });
    peak < 0.0
}

/// An orthonormal basis of at least the `count` directions of largest variance of `centred`, `[C, N]`: `[C, size]`, and
/// the variances along them, falling.
fn leading_subspace(centred: &Array2<f32>, count: usize) -> (Array2<f32>, Vec<f64>) {
    let (channels, cells) = centred.dim();
    let size = (count + OVERSAMPLING).min(channels);
    let mut basis = start(channels, size); // [C, size]
    orthonormalize(&mut basis);
    let mut variances = vec![0.0; size];
    for _ in 0..MAX_ITERATIONS {
        let projected = centred.t().dot(&basis); // [N, size]
        let gram = projected.t().dot(&projected).mapv(f64::from) / cells as f64; // [size, size]
        let (values, vectors) = symmetric_eigen(gram);
        let changes = values.iter().zip(&variances).take(count).map(|(new, old)| (new - old).abs());
        let change = changes.fold(0.0, f64::max);
        variances = values;
        let rotation = vectors.mapv(|value| value as f32); // [size, size]
        // With as many directions as channels the basis spans everything: one rotation is the answer.
        if size == channels || change <= TOLERANCE * variances[0].abs() {
            basis = basis.dot(&rotation);
            break;
        }
        basis = centred.dot(&projected.dot(&rotation)); // [C, size]
        orthonormalize(&mut basis);
    }
    (basis, variances)
}

/// Fixed numbers without structure, so that no direction is missing from the start and every run is the same.
fn start(channels: usize, size: usize) -> Array2<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    Array2::from_shape_simple_fn((channels, size), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / ((1_u64 << 24) as f32) - 0.5
    })
}

/// Gram-Schmidt on the columns, twice for float32's sake. A column that lies in the span of those before it (the map
/// has fewer dimensions than asked for) is replaced by the first axis that does not.
fn orthonormalize(basis: &mut Array2<f32>) {
    let mut next_axis = 0;
    for index in 0..basis.ncols() {
        loop {
            let (before, mut rest) = basis.view_mut().split_at(Axis(1), index);
            let mut column = rest.column_mut(0);
            let length = column.dot(&column).sqrt();
            for _ in 0..2 {
                let overlaps = before.t().dot(&column); // [index]
                column -= &before.dot(&overlaps);
            }
            let remaining = column.dot(&column).sqrt();
            if remaining > 1e-4 * length && remaining.is_normal() {
                column.mapv_inplace(|value| value / remaining);
                break;
            }
            if next_axis == column.len() {
                break;
            }
            column.fill(0.0);
            column[next_axis] = 1.0;
            next_axis += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptors `mean + a·u + b·v` with orthogonal unit `u` and `v`.
    fn two_dimensional(channels: usize, cells: usize) -> FeatureMap {
        let u = |c: usize| if c.is_multiple_of(2) { (2.0 / channels as f32).sqrt() } else { 0.0 };
        let v = |c: usize| if c % 2 == 1 { -(2.0 / channels as f32).sqrt() } else { 0.0 };
        let value = |c: usize, n: usize| {
            let (a, b) = ((n as f32 * 1.7).sin() * 5.0, (n as f32 * 0.9).cos() * 2.0);
            3.0 + a * u(c) + b * v(c)
        };
        let data = (0..channels * cells).map(|index| value(index / cells, index % cells)).collect();
        FeatureMap::new(channels, 1, cells, data).unwrap()
    }

    #[test]
    fn finds_the_directions_and_their_sign() {
        let components = PrincipalComponents::of(&two_dimensional(16, 200), 3).unwrap();
        let expected = (2.0_f32 / 16.0).sqrt();
        for channel in 0..16 {
            let (first, second) = if channel % 2 == 0 { (expected, 0.0) } else { (0.0, expected) };
            assert!((components.directions[[0, channel]] - first).abs() < 2e-2, "{:?}", components.directions);
            assert!((components.directions[[1, channel]] - second).abs() < 2e-2);
        }
        let variances = components.variances();
        assert!((variances[0] - 12.5).abs() < 0.3 && (variances[1] - 2.0).abs() < 0.2, "{variances:?}");
        assert!(variances[2].abs() < 1e-4);
    }

    #[test]
    fn projections_are_centred_and_uncorrelated() {
        let map = two_dimensional(32, 300);
        let projected = PrincipalComponents::of(&map, 2).unwrap().project(&map).unwrap();
        let rows = projected.matrix();
        assert!(rows.row(0).mean().unwrap().abs() < 1e-3);
        assert!((rows.row(0).dot(&rows.row(1)) / 300.0).abs() < 1e-2);
    }

    #[test]
    fn degenerate_maps_have_components_too() {
        let flat = FeatureMap::new(4, 2, 2, vec![1.0; 16]).unwrap();
        let components = PrincipalComponents::of(&flat, 4).unwrap();
        let gram = components.directions.dot(&components.directions.t());
        for ((row, column), &value) in gram.indexed_iter() {
            assert!((value - f32::from(u8::from(row == column))).abs() < 1e-5);
        }
        assert!(components.project(&flat).unwrap().data().iter().all(|value| value.abs() < 1e-5));
        let broken = FeatureMap::new(2, 1, 2, vec![f32::NAN, 1.0, f32::INFINITY, 0.0]).unwrap();
        assert!(PrincipalComponents::of(&broken, 1).is_ok());
    }

    #[test]
    fn the_count_is_checked() {
        let map = two_dimensional(4, 10);
        for asked in [0, 5] {
            assert_eq!(
                PrincipalComponents::of(&map, asked).unwrap_err(),
                ComponentsError::Count { asked, channels: 4 }
            );
        }
    }
}
