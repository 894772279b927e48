//! Projective maps of the plane.

use std::fmt;

/// A 3 × 3 matrix in row order that maps `(x, y, 1)` up to scale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Homography(pub [[f64; 3]; 3]);

impl Homography {
    /// Leaves every point where it is.
    pub const IDENTITY: Self = Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);

    /// Moves by `(x, y)`.
    pub fn translation(x: f64, y: f64) -> Self {
        Self([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    }

    /// Scales about the origin.
    pub fn scaling(factor: f64) -> Self {
        Self([[factor, 0.0, 0.0], [0.0, factor, 0.0], [0.0, 0.0, 1.0]])
    }

    /// Turns about the origin by twice the angle whose tangent is `half_tangent`. With y downwards
    /// a positive value turns clockwise. This needs no trigonometric function, so the matrix is the
    /// same on every machine.
    pub fn rotation(half_tangent: f64) -> Self {
        let norm = 1.0 + half_tangent * half_tangent;
        let (cos, sin) = ((1.0 - half_tangent * half_tangent) / norm, 2.0 * half_tangent / norm);
        Self([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    }

    /// Divides by `1 + x * horizontal + y * vertical`: a plane leaning away from the viewer.
    pub fn perspective(horizontal: f64, vertical: f64) -> Self {
        Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [horizontal, vertical, 1.0]])
    }

    /// This map first, then `next`.
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        let mut product = [[0.0; 3]; 3];
        for (row, left) in product.iter_mut().zip(&next.0) {
            for (column, cell) in row.iter_mut().enumerate() {
                *cell = left.iter().zip(&self.0).map(|(a, right)| a * right[column]).sum();
            }
        }
        Self(product)
    }

    /// The map back, scaled so that its last element is 1; `None` when there is none.
    pub fn inverse(&self) -> Option<Self> {
        let [[a, b, c], [d, e, f], [g, h, i]] = self.0;
        let adjugate = [
            [e * i - f * h, c * h - b * i, b * f - c * e],
            [f * g - d * i, a * i - c * g, c * d - a * f],
            [d * h - e * g, b * g - a * h, a * e - b * d],
        ];
        let determinant = a * adjugate[0][0] + b * adjugate[1][0] + c * adjugate[2][0];
        let last = adjugate[2][2];
        let invertible = determinant.abs() > 1e-12 && last.abs() > 1e-12;
        invertible.then(|| Self(adjugate.map(|row| row.map(|cell| cell / last))))
    }

    /// The same map with a last element of 1.
    ///
    /// Every homography here is built from maps that keep the plane's middle in front of the viewer,
    /// so its last element is not 0.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let last = self.0[2][2];
        Self(self.0.map(|row| row.map(|cell| cell / last)))
    }

    /// Where `(x, y)` goes.
    pub fn apply(&self, [x, y]: [f64; 2]) -> [f64; 2] {
        let [px, py, w] = self.0.map(|[a, b, c]| a * x + b * y + c);
        [px / w, py / w]
    }
}

/// Three lines of three numbers, with as many digits as bring the same bits back.
impl fmt::Display for Homography {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for [a, b, c] in self.0 {
            writeln!(formatter, "{a} {b} {c}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rotation_is_a_rotation() {
        let quarter = Homography::rotation(1.0).apply([1.0, 0.0]);
        assert!((quarter[0]).abs() < 1e-15 && (quarter[1] - 1.0).abs() < 1e-15);
    }

    #[test]
    fn a_singular_map_has_no_inverse() {
        assert_eq!(Homography([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]]).inverse(), None);
    }

    proptest! {
        #[test]
        fn inverse_brings_points_back(
            turn in -0.3..0.3_f64, scale in 0.5..2.0_f64, lean in -3e-4..3e-4_f64,
            shift in -90.0..90.0_f64, x in 0.0..480.0_f64, y in 0.0..360.0_f64,
        ) {
            let map = Homography::rotation(turn)
                .then(&Homography::scaling(scale))
                .then(&Homography::perspective(lean, -lean))
                .then(&Homography::translation(shift, -shift));
            let back = map.inverse().unwrap().apply(map.apply([x, y]));
            prop_assert!((back[0] - x).abs() < 1e-8 && (back[1] - y).abs() < 1e-8);
        }

        #[test]
        fn text_brings_the_same_bits_back(cells in prop::array::uniform9(-1e6..1e6_f64)) {
            let [a, b, c, d, e, f, g, h, i] = cells;
            let text = Homography([[a, b, c], [d, e, f], [g, h, i]]).to_string();
            let parsed: Vec<f64> = text.split_whitespace().map(|x| x.parse().unwrap()).collect();
            prop_assert_eq!(parsed, cells.to_vec());
        }
    }
}
