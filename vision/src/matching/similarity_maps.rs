//! Similarities of points with every cell of the target.

use std::ops::Range;

use ndarray::{Array2, ArrayViewMut2, s};

use super::MatchedImage;
use super::correspondences::{MatchError, check_channels};
use super::similarity::as_cosine;
use crate::features::{GridSize, ImagePoints, NormalizedMap, Tensor};
use crate::product::multiply;

/// The cosine similarities of points of the source with the cells of the target, `[P, h, w]`, within [-1, 1], computed on
/// demand.
#[derive(Clone, Debug)]
pub struct SimilarityMaps {
    /// `[P, C]`.
    descriptors: Array2<f32>,
    target: NormalizedMap,
}

impl SimilarityMaps {
    /// The similarities of `points` of `source` with the cells of `target`.
    ///
    /// # Errors
    /// [`MatchError`] if the maps have different numbers of channels.
    pub fn new(source: MatchedImage<'_>, points: &ImagePoints, target: NormalizedMap) -> Result<Self, MatchError> {
        check_channels(source.map, &target)?;
        Ok(Self { descriptors: source.unit_descriptors_at(points), target })
    }

    /// The grid of each point's map.
    pub fn grid(&self) -> GridSize {
        self.target.grid()
    }
}

impl Tensor for SimilarityMaps {
    fn shape(&self) -> Vec<usize> {
        vec![self.descriptors.nrows(), self.grid().height, self.grid().width]
    }

    /// The size of one point's map.
    fn unit(&self) -> usize {
        self.grid().cells()
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let cells = self.unit();
        let (first, last) = (range.start / cells, range.end / cells);
        let start = values.len();
        values.resize(start + range.len(), 0.0);
        let mut maps = ArrayViewMut2::from_shape((last - first, cells), &mut values[start..])
            .expect("the range consists of whole maps");
        multiply(&self.descriptors.slice(s![first..last, ..]), &self.target.matrix(), &mut maps); // [P, C] · [C, M]
        maps.mapv_inplace(as_cosine);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureMap, PixelPoint};
    use crate::image::ImageSize;

    #[test]
    fn ranges_are_parts_of_the_whole_and_each_maximum_is_at_its_point() {
        let data: Vec<f32> = (0..8 * 12).map(|i| ((i * i) as f32).sin()).collect();
        let map = FeatureMap::new(8, 3, 4, data).unwrap().into_normalized();
        let image = ImageSize { width: 40, height: 30 };
        // The centres of cells 0, 6 and 11.
        let points = [[4.5, 4.5], [24.5, 14.5], [34.5, 24.5]].map(PixelPoint::from).to_vec();
        let points = ImagePoints::new(points, image).unwrap();
        let maps = SimilarityMaps::new(MatchedImage { map: &map, image }, &points, map.clone()).unwrap();
        assert_eq!(maps.shape(), [3, 3, 4]);
        let mut whole = Vec::new();
        maps.append(0..36, &mut whole);
        let mut part = Vec::new();
        maps.append(12..24, &mut part);
        assert_eq!(part, whole[12..24]);
        for (similarities, cell) in whole.chunks(12).zip([0, 6, 11]) {
            assert!((similarities[cell] - 1.0).abs() < 1e-5);
            assert!(similarities.iter().all(|similarity| *similarity <= similarities[cell]));
        }
    }
}
