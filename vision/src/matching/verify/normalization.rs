//! Normalisation of coordinates (Hartley, *In Defense of the Eight-Point Algorithm*, 1997, section 5), and linear least
//! squares in normalised coordinates.

use nalgebra::{Matrix3, SMatrix, SVector};

use super::consensus::WeightedPair;
use crate::image::ImageSize;

/// A translation and a scaling: `scale · (x − centre)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SimilarityTransform {
    centre: [f64; 2],
    scale: f64,
}

impl SimilarityTransform {
    /// Maps the middle of an image to the origin, and `unit_px` pixels to a length of 1.
    pub(super) fn from_image(image: ImageSize, unit_px: f64) -> Self {
        let middle = |length: u32| (f64::from(length) - 1.0) / 2.0;
        Self { centre: [middle(image.width), middle(image.height)], scale: unit_px.recip() }
    }

    /// Maps the points' centroid to the origin, and their mean distance from it to √2. `None` if all points are equal.
    fn from_points(points: impl Iterator<Item = [f64; 2]> + Clone) -> Option<Self> {
        let count = points.clone().count() as f64;
        let sum = points.clone().fold([0.0; 2], |[x, y], point| [x + point[0], y + point[1]]);
        let centre = sum.map(|sum| sum / count);
        let distances: f64 = points.map(|point| (point[0] - centre[0]).hypot(point[1] - centre[1])).sum();
        let scale = std::f64::consts::SQRT_2 * count / distances;
        scale.is_normal().then_some(Self { centre, scale })
    }

    pub(super) fn apply(&self, point: [f64; 2]) -> [f64; 2] {
        [(point[0] - self.centre[0]) * self.scale, (point[1] - self.centre[1]) * self.scale]
    }

    pub(super) const fn scale(&self) -> f64 {
        self.scale
    }

    pub(super) fn matrix(&self) -> Matrix3<f64> {
        let Self { centre: [x, y], scale } = *self;
        Matrix3::new(scale, 0.0, -scale * x, 0.0, scale, -scale * y, 0.0, 0.0, 1.0)
    }

    pub(super) fn inverse_matrix(&self) -> Matrix3<f64> {
        let Self { centre: [x, y], scale } = *self;
        Matrix3::new(scale.recip(), 0.0, x, 0.0, scale.recip(), y, 0.0, 0.0, 1.0)
    }
}

/// Coefficients of a homogeneous linear equation in the nine entries of a matrix, row by row.
pub(super) type Equation = SVector<f64, 9>;

/// The matrix of norm 1 that fits the `N` equations of each pair best in normalised coordinates, and the normalisations of
/// source and target.
pub(super) fn least_squares<const N: usize>(
    pairs: &[WeightedPair],
    equations: impl Fn([f64; 2], [f64; 2]) -> [Equation; N],
) -> Option<(Matrix3<f64>, SimilarityTransform, SimilarityTransform)> {
    let source = SimilarityTransform::from_points(pairs.iter().map(|weighted| weighted.pair.source))?;
    let target = SimilarityTransform::from_points(pairs.iter().map(|weighted| weighted.pair.target))?;
    let mut normal = SMatrix::<f64, 9, 9>::zeros();
    for WeightedPair { pair, weight } in pairs {
        for equation in equations(source.apply(pair.source), target.apply(pair.target)) {
            normal.syger(*weight, &equation, &equation, 1.0);
        }
    }
    normal.fill_upper_triangle_with_lower_triangle();
    // The number of iterations is bounded, because values that are not finite would never converge.
    let eigen = normal.try_symmetric_eigen(f64::EPSILON, 200)?;
    let smallest = eigen.eigenvectors.column(eigen.eigenvalues.imin());
    Some((Matrix3::from_row_slice(smallest.as_slice()), source, target))
}
