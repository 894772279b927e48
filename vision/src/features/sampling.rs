//! Descriptors at points between the cells, by bilinear interpolation.

use ndarray::Array2;
use rayon::prelude::*;

use super::feature_map::inverse_length;
use super::{AxisPosition, CellPoint, FeatureMap, GridSize, ImagePoints};
use crate::image::ImageSize;

/// The four cells around a point of a map, and their weights.
#[derive(Clone, Copy, Debug)]
struct BilinearWeights {
    /// Row-major indices: top left, top right, bottom left, bottom right. At the border some are equal.
    cells: [usize; 4],
    /// They add up to 1.
    weights: [f32; 4],
}

impl BilinearWeights {
    /// The weights at `point`; outside the centres of the outermost cells, those at the nearest point between them.
    fn new(point: CellPoint, grid: GridSize) -> Self {
        let (x, y) = (AxisPosition::new(point.x, grid.width), AxisPosition::new(point.y, grid.height));
        let index = |row: usize, column: usize| row * grid.width + column;
        let (fx, fy) = (x.fraction, y.fraction);
        Self {
            cells: [
                index(y.before, x.before),
                index(y.before, x.after),
                index(y.after, x.before),
                index(y.after, x.after),
            ],
            weights: [(1.0 - fy) * (1.0 - fx), (1.0 - fy) * fx, fy * (1.0 - fx), fy * fx],
        }
    }

    /// The interpolated value of one channel, `[H, W]`.
    fn interpolate(&self, channel: &[f32]) -> f32 {
        self.cells.iter().zip(self.weights).map(|(&cell, weight)| channel[cell] * weight).sum()
    }
}

/// Descriptors at `points` of a picture of size `image`, by bilinear interpolation of `map`: `[P, C]`.
///
/// Beyond the centres of the outermost cells the border cell's descriptor continues. Between the cells of a normalised
/// map the descriptors are shorter than 1; [`l2_normalize_rows`] scales them.
#[expect(clippy::missing_panics_doc, reason = "there is one value for every point and channel")]
pub fn descriptors_at(map: &FeatureMap, image: ImageSize, points: &ImagePoints) -> Array2<f32> {
    let geometry = map.geometry(image);
    let grid = map.grid();
    let weights: Vec<BilinearWeights> =
        points.as_slice().iter().map(|&point| BilinearWeights::new(geometry.cell_from_pixel(point), grid)).collect();
    let mut descriptors = vec![0.0_f32; points.len() * map.channels()]; // [P, C]
    descriptors.par_chunks_exact_mut(map.channels()).zip(&weights).for_each(|(descriptor, weights)| {
        for (value, channel) in descriptor.iter_mut().zip(map.data().chunks_exact(grid.cells())) {
            *value = weights.interpolate(channel);
        }
    });
    Array2::from_shape_vec((points.len(), map.channels()), descriptors)
        .expect("there is one value for every point and channel")
}

/// Scales every row to length 1; rows of zeros, or with values that are not finite, become zeros.
pub fn l2_normalize_rows(descriptors: &mut Array2<f32>) {
    for mut row in descriptors.rows_mut() {
        let scale = inverse_length(row.iter().map(|value| value * value).sum());
        // A product alone would make NaN of infinity times zero.
        row.mapv_inplace(|value| if scale == 0.0 { 0.0 } else { value * scale });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{Layout, PixelPoint};
    use proptest::prelude::*;

    const IMAGE: ImageSize = ImageSize { width: 64, height: 32 };

    /// Channel 0 is the column, channel 1 the row.
    fn ramp() -> FeatureMap {
        let columns = (0..8).map(|cell| (cell % 4) as f32);
        let rows = (0..8).map(|cell| (cell / 4) as f32);
        FeatureMap::new(2, 2, 4, columns.chain(rows).collect()).unwrap()
    }

    fn at(points: &[[f64; 2]]) -> Array2<f32> {
        let points = points.iter().copied().map(PixelPoint::from).collect();
        descriptors_at(&ramp(), IMAGE, &ImagePoints::new(points, IMAGE).unwrap())
    }

    #[test]
    fn centres_give_the_cells_own_descriptors() {
        assert_eq!(at(&[[7.5, 7.5], [55.5, 23.5]]).into_raw_vec_and_offset().0, [0.0, 0.0, 3.0, 1.0]);
    }

    #[test]
    fn between_centres_is_linear_and_the_border_continues() {
        assert_eq!(
            at(&[[15.5, 15.5], [-0.5, -0.5], [63.5, 31.5]]).into_raw_vec_and_offset().0,
            [0.5, 0.5, 0.0, 0.0, 3.0, 1.0]
        );
    }

    #[test]
    fn rows_have_length_one_or_zero() {
        let mut rows = ndarray::array![[3.0_f32, 4.0], [0.0, 0.0], [f32::INFINITY, 1.0], [f32::NAN, 1.0], [1e-30, 0.0]];
        l2_normalize_rows(&mut rows);
        assert_eq!(rows, ndarray::array![[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]);
    }

    #[test]
    fn a_map_is_normalised_cell_by_cell() {
        let map = FeatureMap::new(2, 1, 2, vec![3.0, f32::INFINITY, 4.0, 1.0]).unwrap().into_normalized();
        assert_eq!(map.data(), [0.6, 0.0, 0.8, 0.0]);
        assert_eq!(map.view(Layout::Hwc).iter().copied().collect::<Vec<_>>(), [0.6, 0.8, 0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn weights_are_a_partition(x in -3.0_f64..12.0, y in -3.0_f64..12.0, width in 1_usize..9, height in 1_usize..9) {
            let bilinear = BilinearWeights::new(CellPoint { x, y }, GridSize { width, height });
            prop_assert!((bilinear.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            prop_assert!(bilinear.weights.iter().all(|&weight| (0.0..=1.0).contains(&weight)));
            prop_assert!(bilinear.cells.iter().all(|&cell| cell < width * height));
        }
    }
}
