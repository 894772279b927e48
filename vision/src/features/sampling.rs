//! Descriptors between the cells.

use ndarray::Array2;
use rayon::prelude::*;

use super::feature_map::inverse_length;
use super::{CellPoint, FeatureMap, GridSize, ImagePoints};
use crate::image::ImageSize;

/// The four cells around a point of a map, and their weights.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bilinear {
    /// Row-major indices: top left, top right, bottom left, bottom right. At the border some are the same.
    pub(crate) cells: [usize; 4],
    /// Weights that add up to 1.
    pub(crate) weights: [f32; 4],
}

impl Bilinear {
    /// Around `point`, or around the nearest point between the centres of the outermost cells.
    pub(crate) fn at(point: CellPoint, grid: GridSize) -> Self {
        let (x0, x1, fx) = neighbours(point.x, grid.width);
        let (y0, y1, fy) = neighbours(point.y, grid.height);
        let index = |y: usize, x: usize| y * grid.width + x;
        Self {
            cells: [index(y0, x0), index(y0, x1), index(y1, x0), index(y1, x1)],
            weights: [(1.0 - fy) * (1.0 - fx), (1.0 - fy) * fx, fy * (1.0 - fx), fy * fx],
        }
    }

    /// The interpolated value of one channel.
    pub(crate) fn of(&self, channel: &[f32]) -> f32 {
        self.cells.iter().zip(self.weights).map(|(&cell, weight)| channel[cell] * weight).sum()
    }
}

/// The two cells on either side of `position`, and how far it is on the way to the second.
pub fn neighbours(position: f64, length: usize) -> (usize, usize, f32) {
    let last = length - 1;
    let clamped = position.clamp(0.0, last as f64);
    let first = (clamped as usize).min(last);
    (first, (first + 1).min(last), (clamped - first as f64) as f32)
}

/// Descriptors at `points` of a picture of size `image`, by bilinear interpolation of `map`: `[P, C]`.
///
/// Beyond the centres of the outermost cells the border cell's descriptor continues. The values are those of the map:
/// of a normalised map they are a little shorter than 1 between cells, see [`l2_normalize_rows`].
#[expect(clippy::missing_panics_doc, reason = "there is one value for every point and channel")]
pub fn descriptors_at(map: &FeatureMap, image: ImageSize, points: &ImagePoints) -> Array2<f32> {
    let geometry = map.geometry(image);
    let grid = map.grid();
    let places: Vec<Bilinear> =
        points.as_slice().iter().map(|&point| Bilinear::at(geometry.cell_from_pixel(point), grid)).collect();
    let mut descriptors = vec![0.0_f32; points.len() * map.channels()]; // [P, C]
    descriptors.par_chunks_exact_mut(map.channels()).zip(&places).for_each(|(descriptor, place)| {
        for (value, channel) in descriptor.iter_mut().zip(map.data().chunks_exact(grid.cells())) {
            *value = place.of(channel);
        }
    });
    Array2::from_shape_vec((points.len(), map.channels()), descriptors).expect("one value a point and channel")
}

/// Scales every row to length 1; rows of zeros, or with values that are not finite, become zeros.
pub fn l2_normalize_rows(descriptors: &mut Array2<f32>) {
    for mut row in descriptors.rows_mut() {
        let scale = inverse_length(row.iter().map(|value| value * value).sum());
        // Not a product alone: infinity times zero is NaN.
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
    fn rows_become_unit_or_zero() {
        let mut rows = ndarray::array![[3.0_f32, 4.0], [0.0, 0.0], [f32::INFINITY, 1.0], [f32::NAN, 1.0], [1e-30, 0.0]];
        l2_normalize_rows(&mut rows);
        assert_eq!(rows, ndarray::array![[0.6, 0.8], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]);
    }

    #[test]
    fn a_map_normalises_each_position() {
        let map = FeatureMap::new(2, 1, 2, vec![3.0, f32::INFINITY, 4.0, 1.0]).unwrap().into_normalized();
        assert_eq!(map.data(), [0.6, 0.0, 0.8, 0.0]);
        assert_eq!(map.view(Layout::Hwc).iter().copied().collect::<Vec<_>>(), [0.6, 0.8, 0.0, 0.0]);
    }

    proptest! {
        #[test]
        fn weights_are_a_partition(x in -3.0_f64..12.0, y in -3.0_f64..12.0, width in 1_usize..9, height in 1_usize..9) {
            let place = Bilinear::at(CellPoint { x, y }, GridSize { width, height });
            prop_assert!((place.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            prop_assert!(place.weights.iter().all(|&weight| (0.0..=1.0).contains(&weight)));
            prop_assert!(place.cells.iter().all(|&cell| cell < width * height));
        }
    }
}
