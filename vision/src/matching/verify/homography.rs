//! Homographies: `x' ~ H·x`.

use nalgebra::{Matrix3, Vector3};

use super::Pair;
use super::consensus::{Model, Weighted};
use super::normalization::{Equation, least_squares};

/// Triangles smaller than this (twice their area, in thresholds) do not tell directions apart.
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

    /// Through the frames of four points (Hartley and Zisserman, exercise 2.10.ii): exact, and cheaper than linear
    /// equations.
    fn of_sample(sample: &[Pair]) -> Vec<Self> {
        let &[a, b, c, d] = sample else { return Vec::new() };
        let frames = (frame([a, b, c, d].map(|pair| pair.source)), frame([a, b, c, d].map(|pair| pair.target)));
        let (Some((from, from_scales)), Some((to, to_scales))) = frames else { return Vec::new() };
        // All four in front of the horizon, or the sample is no view of one plane.
        if from_scales.component_div(&to_scales).iter().any(|ratio| *ratio <= 0.0) {
            return Vec::new();
        }
        from.try_inverse().and_then(|inverse| Self::new(to * inverse)).into_iter().collect()
    }

    /// The direct linear transform (Hartley and Zisserman, algorithm 4.2).
    fn of_inliers(pairs: &[Weighted]) -> Option<Self> {
        let (matrix, source, target) = least_squares(pairs, |[x, y], [u, v]| {
            [
                Equation::from([x, y, 1.0, 0.0, 0.0, 0.0, -u * x, -u * y, -u]),
                Equation::from([0.0, 0.0, 0.0, x, y, 1.0, -v * x, -v * y, -v]),
            ]
        })?;
        Self::new(target.inverse_matrix() * matrix * source.matrix())
    }

    fn squared_distance(&self, pair: &Pair) -> f64 {
        let there = squared_distance(&self.forward, pair.source, pair.target);
        let back = squared_distance(&self.backward, pair.target, pair.source);
        there.max(back)
    }
}

/// The matrix that takes the unit vectors to the first three points and (1, 1, 1) to the fourth, and the factors of the
/// three; nothing if three of the four are on a line.
fn frame(points: [[f64; 2]; 4]) -> Option<(Matrix3<f64>, Vector3<f64>)> {
    let [a, b, c, d] = points.map(|[x, y]| Vector3::new(x, y, 1.0));
    let triangle = Matrix3::from_columns(&[a, b, c]);
    let area = triangle.determinant();
    let scales = triangle.try_inverse()? * d;
    // The factor of a point is the triangle of the other three over the first triangle.
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
