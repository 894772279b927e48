//! One vector for a whole picture, or for a part of it, from the cells of its map.

use std::fmt;
use std::str::FromStr;

use ndarray::Array1;
use rayon::prelude::*;

use super::{CellWindow, FeatureMap};

/// The exponent of [`Pooling::Gem`], at which Radenović et al. start to learn it.
const GEM_EXPONENT: i32 = 3;
/// Smaller values are raised to it in [`Pooling::Gem`], which takes a root. It is the constant of the authors' own code.
const GEM_LEAST: f64 = 1e-6;

/// How the values of a channel become one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// The mean.
    Mean,
    /// The largest value.
    Max,
    /// The generalised mean `(mean of x³)^(1/3)` of the values, each at least 1e-6: between the mean and the largest value
    /// (Radenović, Tolias and Chum, *Fine-tuning CNN Image Retrieval with No Human Annotation*, 2017, equation 3, with one
    /// exponent for all channels).
    Gem,
}

/// A text that names no pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not mean, max or gem")]
pub struct ParsePoolingError;

impl Pooling {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Mean, Self::Max, Self::Gem];

    /// The name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::Max => "max",
            Self::Gem => "gem",
        }
    }
}

impl fmt::Display for Pooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Pooling {
    type Err = ParsePoolingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|pooling| pooling.name() == text).ok_or(ParsePoolingError)
    }
}

/// The values of `cells` of every channel, pooled: `[C]`. NaN in a channel makes its number NaN.
///
/// # Panics
/// If the rectangle reaches beyond the map.
pub fn pooled(map: &FeatureMap, cells: &CellWindow, pooling: Pooling) -> Array1<f32> {
    let grid = map.grid();
    assert!(cells.columns.end <= grid.width && cells.rows.end <= grid.height, "{cells:?}");
    let values = map.data().par_chunks_exact(grid.cells()).map(|channel| {
        let rows = channel.chunks_exact(grid.width).skip(cells.rows.start).take(cells.rows.len());
        let inside = rows.flat_map(|row| row[cells.columns.clone()].iter().map(|&value| f64::from(value)));
        pool_channel(inside, pooling) as f32
    });
    Array1::from(values.collect::<Vec<f32>>())
}

/// Scales a vector to length 1; one of zeros, or with values that are not finite, becomes zeros.
pub fn l2_normalize_vector(vector: &mut Array1<f32>) {
    let length = vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let has_length = length.is_normal();
    vector.mapv_inplace(|value| if has_length { (f64::from(value) / length) as f32 } else { 0.0 });
}

/// Sums are in double precision: a large map's mean is as exact as its values.
fn pool_channel(values: impl Iterator<Item = f64>, pooling: Pooling) -> f64 {
    let (mut sum, mut largest, mut count) = (0.0, f64::NEG_INFINITY, 0_u32);
    for value in values {
        if value.is_nan() {
            return value;
        }
        count += 1;
        match pooling {
            Pooling::Mean => sum += value,
            Pooling::Max => largest = f64::max(largest, value),
            Pooling::Gem => sum += f64::max(value, GEM_LEAST).powi(GEM_EXPONENT),
        }
    }
    match pooling {
        Pooling::Mean => sum / f64::from(count),
        Pooling::Max => largest,
        Pooling::Gem => (sum / f64::from(count)).cbrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::GridSize;
    use proptest::prelude::*;

    fn whole(grid: GridSize) -> CellWindow {
        CellWindow { columns: 0..grid.width, rows: 0..grid.height }
    }

    fn pool(data: Vec<f32>, pooling: Pooling) -> f32 {
        let map = FeatureMap::new(1, 1, data.len(), data).unwrap();
        pooled(&map, &whole(map.grid()), pooling)[0]
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the numbers are exact")]
    fn each_pooling_is_its_formula() {
        let values = || vec![1.0, 2.0, 3.0, 6.0];
        assert_eq!(pool(values(), Pooling::Mean), 3.0);
        assert_eq!(pool(values(), Pooling::Max), 6.0);
        // (1 + 8 + 27 + 216) / 4 = 63.
        assert_eq!(pool(values(), Pooling::Gem), 63.0_f32.cbrt());
        assert_eq!(pool(vec![-5.0, -7.0], Pooling::Max), -5.0);
        assert_eq!(pool(vec![-5.0, -7.0], Pooling::Gem), 1e-6, "negative values count as the least");
        assert_eq!(pool(vec![2e38, 2e38], Pooling::Gem), 2e38, "cubes do not overflow");
    }

    #[test]
    fn a_window_takes_its_own_cells() {
        // Channel 1 is ten times channel 0; rows are 0 1 2 3, 4 5 6 7, 8 9 10 11.
        let data = (0..12).map(|i| i as f32).chain((0..12).map(|i| 10.0 * i as f32)).collect();
        let map = FeatureMap::new(2, 3, 4, data).unwrap();
        let cells = CellWindow { columns: 1..3, rows: 1..3 };
        assert_eq!(pooled(&map, &cells, Pooling::Mean), ndarray::array![7.5, 75.0]);
        assert_eq!(pooled(&map, &cells, Pooling::Max), ndarray::array![10.0, 100.0]);
    }

    #[test]
    fn nan_is_not_passed_over() {
        for pooling in Pooling::ALL {
            assert!(pool(vec![1.0, f32::NAN, 2.0], pooling).is_nan(), "{pooling}");
        }
    }

    #[test]
    #[expect(clippy::float_cmp, reason = "the numbers are exact")]
    fn a_vector_has_length_one_or_zero() {
        let normalized = |values: [f32; 2]| {
            let mut vector = Array1::from(values.to_vec());
            l2_normalize_vector(&mut vector);
            vector.to_vec()
        };
        assert_eq!(normalized([3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalized([3e38, 3e38])[0], 0.5_f32.sqrt(), "squares do not overflow");
        for nothing in [[0.0, 0.0], [f32::NAN, 1.0], [f32::INFINITY, 1.0]] {
            assert_eq!(normalized(nothing), [0.0, 0.0]);
        }
    }

    #[test]
    fn names_are_read_back() {
        for pooling in Pooling::ALL {
            assert_eq!(pooling.name().parse(), Ok(pooling));
        }
        for wrong in ["", "Mean", "avg", "gem3"] {
            assert_eq!(wrong.parse::<Pooling>(), Err(ParsePoolingError), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn gem_lies_between_mean_and_maximum(data in prop::collection::vec(0.01_f32..100.0, 1..40)) {
            let [mean, max, gem] = Pooling::ALL.map(|pooling| pool(data.clone(), pooling));
            prop_assert!(mean <= gem * 1.000_001 && gem <= max * 1.000_001, "{mean} {gem} {max}");
        }
    }
}
