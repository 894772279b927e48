//! Principal components of the descriptors of a map.
//!
//! They are fitted to the centred descriptors of the whole map; `leading_subspace` computes them.

use ndarray::{Array1, Array2, ArrayView1, Axis};

use super::FeatureMap;
use super::leading_subspace::leading_directions;

/// Largest number of components of a map with more than [`WIDE`] channels: more would take minutes.
const MAX_OF_WIDE_MAPS: usize = 512;
const WIDE: usize = 1024;

/// The reason why components could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComponentsError {
    /// The count is 0, more than there are channels, or more than can be computed in reasonable time.
    #[error("components must be within 1 to {most} for {channels} channels, not {asked}")]
    Count {
        /// The requested count.
        asked: usize,
        /// The map's channels.
        channels: usize,
        /// The limit.
        most: usize,
    },
}

/// The directions of largest variance of a map's descriptors.
#[derive(Clone, Debug)]
pub struct PrincipalComponents {
    /// `[C]`.
    mean: Array1<f32>,
    /// `[K, C]`, one component a row.
    directions: Array2<f32>,
    variances: Vec<f32>,
}

impl PrincipalComponents {
    /// Checks that a map with `channels` channels can have `count` components.
    ///
    /// # Errors
    /// [`ComponentsError::Count`] unless `count` is at least 1 and at most `channels`, and at most 512 of more than
    /// 1,024 channels.
    pub fn check_count(count: usize, channels: usize) -> Result<(), ComponentsError> {
        let most = if channels > WIDE { MAX_OF_WIDE_MAPS } else { channels };
        let is_possible = (1..=most).contains(&count);
        is_possible.then_some(()).ok_or(ComponentsError::Count { asked: count, channels, most })
    }

    /// The first `count` components of `map`'s descriptors, by falling variance. Each has length 1, and its entry of
    /// largest magnitude is positive, so that equal maps give equal components. Values that are not finite count as 0.
    ///
    /// # Errors
    /// Those of [`check_count`](Self::check_count).
    #[expect(clippy::missing_panics_doc, reason = "a map has at least one cell")]
    pub fn fit(map: &FeatureMap, count: usize) -> Result<Self, ComponentsError> {
        Self::check_count(count, map.channels())?;
        // One NaN or infinity would make every component NaN.
        let mut centred = map.matrix().mapv(|value| if value.is_finite() { value } else { 0.0 }); // [C, N]
        let mean = centred.mean_axis(Axis(1)).expect("a map has cells"); // [C]
        centred -= &mean.view().insert_axis(Axis(1));

        let (mut directions, variances) = leading_directions(&centred, count); // [K, C]
        for mut direction in directions.rows_mut() {
            if has_negative_peak(&direction.view()) {
                direction.mapv_inplace(|value| -value);
            }
        }
        Ok(Self { mean, directions, variances })
    }

    /// The variance along each component, falling.
    pub fn variances(&self) -> &[f32] {
        &self.variances
    }

    /// `map` less the mean, projected on the components: `[count, H, W]`. `None` if the map has another number of
    /// channels than the map that was fitted.
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

/// Tells whether the entry of largest magnitude (the first, if several are equal) is negative.
fn has_negative_peak(direction: &ArrayView1<'_, f32>) -> bool {
    let peak = direction.iter().fold(0.0_f32, |peak, &value| if value.abs() > peak.abs() { value } else { peak });
    peak < 0.0
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
        let components = PrincipalComponents::fit(&two_dimensional(16, 200), 3).unwrap();
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
        let projected = PrincipalComponents::fit(&map, 2).unwrap().project(&map).unwrap();
        let rows = projected.matrix();
        assert!(rows.row(0).mean().unwrap().abs() < 1e-3);
        assert!((rows.row(0).dot(&rows.row(1)) / 300.0).abs() < 1e-2);
    }

    #[test]
    fn a_constant_map_has_orthonormal_components() {
        let flat = FeatureMap::new(4, 2, 2, vec![1.0; 16]).unwrap();
        let components = PrincipalComponents::fit(&flat, 4).unwrap();
        let gram = components.directions.dot(&components.directions.t());
        for ((row, column), &value) in gram.indexed_iter() {
            assert!((value - f32::from(u8::from(row == column))).abs() < 1e-5);
        }
        assert!(components.project(&flat).unwrap().data().iter().all(|value| value.abs() < 1e-5));
    }

    #[test]
    fn values_that_are_not_finite_count_as_zero() {
        let map = |values: [f32; 2]| FeatureMap::new(2, 1, 2, vec![values[0], 1.0, values[1], 3.0]).unwrap();
        let broken = PrincipalComponents::fit(&map([f32::NAN, f32::INFINITY]), 2).unwrap();
        let zeros = PrincipalComponents::fit(&map([0.0, 0.0]), 2).unwrap();
        assert_eq!((broken.directions, broken.variances), (zeros.directions, zeros.variances));
    }

    #[test]
    fn the_count_is_checked() {
        let map = two_dimensional(4, 10);
        for asked in [0, 5] {
            assert_eq!(
                PrincipalComponents::fit(&map, asked).unwrap_err(),
                ComponentsError::Count { asked, channels: 4, most: 4 }
            );
        }
        assert!(
            PrincipalComponents::check_count(1024, 1024).is_ok() && PrincipalComponents::check_count(512, 2048).is_ok()
        );
        assert!(PrincipalComponents::check_count(513, 2048).is_err());
    }
}
