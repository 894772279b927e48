//! The homography as a model of RANSAC: `x' ~ H·x`.

use nalgebra::{Matrix3, Vector3};

use super::PointPair;
use super::consensus::{Model, WeightedPair};
use super::normalization::{Equation, least_squares};

/// Three points count as collinear if twice the area of their triangle, in squared thresholds, is below this.
const MIN_TRIANGLE: f64 = 1e-3;

/// A homography and its inverse.
#[derive(Clone, Copy, Debug)]
pub(super) struct HomographyModel {
    forward: Matrix3<f64>,
    backward: Matrix3<f64>,
}

impl HomographyModel {
    fn new(forward: Matrix3<f64>) -> Option<Self> {
        let forward = forward / forward.norm();
        let backward = forward.try_inverse()?;
        backward.iter().all(|entry| entry.is_finite()).then_some(Self { forward, backward })
    }

    pub(super) fn matrix(&self) -> Matrix3<f64> {
        self.forward
    }
}

impl Model for HomographyModel {
    const SAMPLE: usize = 4;
    const MIN_MATCHES: usize = 4;
    const MAX_SAMPLES: usize = 2_000;

    /// The exact homography of four points through projective frames (Hartley and Zisserman, section 2.10, exercise ii),
    /// which is cheaper than solving linear equations.
    fn from_sample(sample: &[PointPair]) -> Vec<Self> {
        let &[a, b, c, d] = sample else { return Vec::new() };
        let frames = (frame([a, b, c, d].map(|pair| pair.source)), frame([a, b, c, d].map(|pair| pair.target)));
        let (Some((from, from_scales)), Some((to, to_scales))) = frames else { return Vec::new() };
        // If the ratios have different signs, the line at infinity separates the points, and they are no view of one plane.
        if from_scales.component_div(&to_scales).iter().any(|ratio| *ratio <= 0.0) {
            return Vec::new();
        }
        from.try_inverse().and_then(|inverse| Self::new(to * inverse)).into_iter().collect()
    }

    /// The normalised direct linear transform (Hartley and Zisserman, equation 4.3 and algorithm 4.2) with weights.
    fn from_inliers(pairs: &[WeightedPair]) -> Option<Self> {
        let (matrix, source, target) = least_squares(pairs, |[x, y], [u, v]| {
            [
                Equation::from([x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y, -u]),
                Equation::from([0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y, -v]),
            ]
        })?;
        Self::new(target.inverse_matrix() * matrix * source.matrix())
    }

    /// The larger of the squared transfer errors in the two images.
    fn squared_distance(&self, pair: &PointPair) -> f64 {
        let forward = squared_distance(&self.forward, pair.source, pair.target);
        let backward = squared_distance(&self.backward, pair.target, pair.source);
        forward.max(backward)
    }
}

/// The matrix that maps the unit vectors to the first three points and (1, 1, 1) to the fourth, and the scale factors of
/// the three; `None` if three of the four points are collinear.
fn frame(points: [[f64; 2]; 4]) -> Option<(Matrix3<f64>, Vector3<f64>)> {
    let [a, b, c, d] = points.map(|[x, y]| Vector3::new(x, y, 1.0));
    let triangle = Matrix3::from_columns(&[a, b, c]);
    let area = triangle.determinant();
    let scales = triangle.try_inverse()? * d;
    // The factor of a point is the area of the triangle of the other three, divided by that of the first triangle.
    if area.abs() < MIN_TRIANGLE || scales.iter().any(|scale| (scale * area).abs() < MIN_TRIANGLE) {
        return None;
    }
    Some((triangle * Matrix3::from_diagonal(&scales), scales))
}

fn squared_distance(matrix: &Matrix3<f64>, from: [f64; 2], to: [f64; 2]) -> f64 {
    let row = |row: usize| matrix[(row, 0)] * from[0] + matrix[(row, 1)] * from[1] + matrix[(row, 2)];
    let w = row(2).recip();
    let (dx, dy) = (row(0) * w - to[0], row(1) * w - to[1]);
    dx * dx + dy * dy
}
