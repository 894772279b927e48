//! The fundamental matrix as a model of RANSAC: `x'ᵀ·F·x = 0`.

use nalgebra::{Matrix3, SMatrix, SVector};

use super::PointPair;
use super::consensus::{Model, WeightedPair};
use super::normalization::{Equation, least_squares};

/// A fundamental matrix, of rank 2 and Frobenius norm 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct FundamentalMatrix(Matrix3<f64>);

impl FundamentalMatrix {
    fn new(matrix: Matrix3<f64>) -> Option<Self> {
        let matrix = matrix / matrix.norm();
        matrix.iter().all(|entry| entry.is_finite()).then_some(Self(matrix))
    }

    pub(super) fn matrix(&self) -> Matrix3<f64> {
        self.0
    }

    /// The epipoles, where all epipolar lines of an image meet.
    pub(super) fn epipoles(&self) -> Epipoles {
        let Some(svd) = self.0.try_svd(true, true, f64::EPSILON, 200) else { return Epipoles::default() };
        let smallest = svd.singular_values.imin();
        let point = |[x, y, w]: [f64; 3]| (w.abs() > 1e-12).then(|| [x / w, y / w]);
        let source = svd.v_t.and_then(|rows| point(std::array::from_fn(|entry| rows[(smallest, entry)])));
        let target = svd.u.and_then(|columns| point(std::array::from_fn(|entry| columns[(entry, smallest)])));
        Epipoles { source, target }
    }
}

/// The epipoles of two images; `None` for one at infinity.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Epipoles {
    source: Option<[f64; 2]>,
    target: Option<[f64; 2]>,
}

impl Epipoles {
    /// Tells whether a point of the pair is within `distance` of its image's epipole.
    pub(super) fn are_near(&self, pair: &PointPair, distance: f64) -> bool {
        let is_near = |epipole: Option<[f64; 2]>, point: [f64; 2]| {
            epipole.is_some_and(|epipole| (epipole[0] - point[0]).hypot(epipole[1] - point[1]) <= distance)
        };
        is_near(self.source, pair.source) || is_near(self.target, pair.target)
    }
}

impl Model for FundamentalMatrix {
    const SAMPLE: usize = 7;
    const MIN_MATCHES: usize = 8;
    const MAX_SAMPLES: usize = 4_000;

    /// The seven-point algorithm (Hartley and Zisserman, section 11.1.2), which gives one to three matrices.
    fn from_sample(sample: &[PointPair]) -> Vec<Self> {
        let Some([one, other]) = null_space(sample) else { return Vec::new() };
        // det(one + α·other) is a cubic in α, whose coefficients follow from its values at 0, 1, −1 and infinity.
        let (constant, cubic) = (one.determinant(), other.determinant());
        let (sum, difference) = ((one + other).determinant(), (one - other).determinant());
        let (linear, square) = ((sum - difference) / 2.0 - cubic, f64::midpoint(sum, difference) - constant);
        let coefficients = [constant, linear, square, cubic];
        real_roots(coefficients).into_iter().filter_map(|alpha| Self::new(one + other * alpha)).collect()
    }

    /// The normalised eight-point algorithm (Hartley and Zisserman, algorithm 11.1) with weights. The constraint of rank 2
    /// is enforced by setting the smallest singular value to 0.
    fn from_inliers(pairs: &[WeightedPair]) -> Option<Self> {
        if pairs.len() < Self::MIN_MATCHES {
            return None;
        }
        let (matrix, source, target) = least_squares(pairs, |from, to| [equation(from, to)])?;
        let mut svd = matrix.try_svd(true, true, f64::EPSILON, 200)?;
        let smallest = svd.singular_values.imin();
        svd.singular_values[smallest] = 0.0;
        Self::new(target.matrix().transpose() * svd.recompose().ok()? * source.matrix())
    }

    /// The squared Sampson distance (Hartley and Zisserman, equation 11.9).
    fn squared_distance(&self, pair: &PointPair) -> f64 {
        let (f, [x, y], [u, v]) = (&self.0, pair.source, pair.target);
        let line = |row: usize| f[(row, 0)] * x + f[(row, 1)] * y + f[(row, 2)];
        let line_back = |column: usize| f[(0, column)] * u + f[(1, column)] * v + f[(2, column)];
        let (a, b, c) = (line(0), line(1), line(2));
        let (d, e) = (line_back(0), line_back(1));
        let error = a * u + b * v + c;
        error * error / (a * a + b * b + d * d + e * e)
    }
}

/// The coefficients of `x'ᵀ·F·x = 0` for the entries of F (Hartley and Zisserman, equation 11.2).
fn equation([x, y]: [f64; 2], [u, v]: [f64; 2]) -> Equation {
    Equation::from([u * x, u * y, u, v * x, v * y, v, x, y, 1.0])
}

/// Two matrices that span the solutions of the equations of seven pairs; `None` if these are linearly dependent.
fn null_space(sample: &[PointPair]) -> Option<[Matrix3<f64>; 2]> {
    let mut equations = SMatrix::<f64, 7, 9>::zeros();
    for (mut row, pair) in equations.row_iter_mut().zip(sample) {
        row.copy_from(&equation(pair.source, pair.target).transpose());
    }
    let elimination = equations.full_piv_lu();
    let upper = elimination.u();
    // With full pivoting, pivots do not rise; a last one near 0 compared with the first means dependent equations.
    if upper[(6, 6)].abs() < 1e-9 * upper[(0, 0)].abs() {
        return None;
    }
    let solved = upper.fixed_columns::<7>(0).solve_upper_triangular(&upper.fixed_columns::<2>(7))?;
    let vector = |free: usize| {
        let mut vector = SVector::<f64, 9>::zeros();
        vector.fixed_rows_mut::<7>(0).copy_from(&-solved.column(free));
        vector[7 + free] = 1.0;
        elimination.q().inv_permute_rows(&mut vector);
        Matrix3::from_row_slice((vector / vector.norm()).as_slice())
    };
    Some([vector(0), vector(1)])
}

/// The real roots of `c[0] + c[1]·x + c[2]·x² + c[3]·x³`.
fn real_roots([c0, c1, c2, c3]: [f64; 4]) -> Vec<f64> {
    if c3.abs() < 1e-12 * (c0.abs() + c1.abs() + c2.abs()) {
        return quadratic_roots(c0, c1, c2);
    }
    // x = t − shift gives t³ + p·t + q = 0, solved by Cardano's formula or, with three roots, by Viète's.
    let shift = c2 / (3.0 * c3);
    let p = c1 / c3 - 3.0 * shift * shift;
    let q = 2.0 * shift * shift * shift - shift * c1 / c3 + c0 / c3;
    let discriminant = q * q / 4.0 + p * p * p / 27.0;
    if discriminant > 0.0 {
        let root = discriminant.sqrt();
        return vec![(-q / 2.0 + root).cbrt() + (-q / 2.0 - root).cbrt() - shift];
    }
    let radius = 2.0 * (-p / 3.0).max(0.0).sqrt();
    let angle = if radius > 0.0 { (-4.0 * q / radius.powi(3)).clamp(-1.0, 1.0).acos() } else { 0.0 };
    (0..3).map(|turn| radius * ((angle + std::f64::consts::TAU * f64::from(turn)) / 3.0).cos() - shift).collect()
}

fn quadratic_roots(c0: f64, c1: f64, c2: f64) -> Vec<f64> {
    let discriminant = c1 * c1 - 4.0 * c2 * c0;
    if discriminant < 0.0 {
        return Vec::new();
    }
    // This form does not subtract nearly equal numbers.
    let q = -0.5 * (c1 + c1.signum() * discriminant.sqrt());
    [q / c2, c0 / q].into_iter().filter(|root| root.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn roots_are_where_the_polynomial_is_zero(roots in prop::array::uniform3(-3.0_f64..3.0)) {
            let [a, b, c] = roots;
            let coefficients = [-a * b * c, a * b + b * c + a * c, -(a + b + c), 1.0];
            let found = real_roots(coefficients);
            prop_assert!(!found.is_empty());
            for x in found {
                let value = coefficients.iter().rev().fold(0.0, |value, c| value * x + c);
                prop_assert!(value.abs() < 1e-6, "{x} {value}");
            }
        }
    }

    #[test]
    fn every_epipolar_line_goes_through_the_epipoles() {
        // A camera that moves by (1, 2, 1): both epipoles are at (1, 2).
        let matrix = FundamentalMatrix::new(nalgebra::Vector3::new(1.0, 2.0, 1.0).cross_matrix()).unwrap();
        let epipoles = matrix.epipoles();
        let pair = |source, target| PointPair { source, target };
        assert!(epipoles.are_near(&pair([1.0, 2.0], [9.0, 9.0]), 1e-6));
        assert!(epipoles.are_near(&pair([9.0, 9.0], [1.0, 2.0]), 1e-6));
        assert!(!epipoles.are_near(&pair([3.0, 2.0], [1.0, 4.0]), 1.9));
        // A camera that moves sideways has them at infinity.
        let sideways = FundamentalMatrix::new(nalgebra::Vector3::new(1.0, 0.0, 0.0).cross_matrix()).unwrap();
        assert!(sideways.epipoles().source.is_none() && sideways.epipoles().target.is_none());
    }

    #[test]
    fn a_single_root_and_no_root() {
        assert!((real_roots([-8.0, 0.0, 0.0, 1.0])[0] - 2.0).abs() < 1e-12);
        let mut both = real_roots([-6.0, 1.0, 1.0, 0.0]);
        both.sort_by(f64::total_cmp);
        assert!((both[0] + 3.0).abs() < 1e-12 && (both[1] - 2.0).abs() < 1e-12, "{both:?}");
        assert!(real_roots([1.0, 0.0, 1.0, 0.0]).is_empty());
    }
}
