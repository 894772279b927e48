//! Projective maps between pictures: made, composed, inverted, read and written.
//!
//! A homography takes `(x, y, 1)`, in pixels, to the same of another picture up to scale (R. Hartley and A. Zisserman,
//! *Multiple View Geometry*, section 2.3). Estimating one from matches is [`crate::matching::verify`]'s.

use std::fmt;
use std::str::FromStr;

use crate::features::PixelPoint;

/// A 3×3 matrix, row by row, that maps `(x, y, 1)` of one image to another, in pixels and up to scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Homography([[f64; 3]; 3]);

/// The reason why a text or a matrix is not a homography.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HomographyError {
    /// A word is not a finite number.
    #[error("`{word}` is not a finite number")]
    Number {
        /// The word.
        word: String,
    },
    /// The text does not have nine numbers.
    #[error("a homography has 9 numbers, and here are {count}")]
    Count {
        /// Number of numbers.
        count: usize,
    },
    /// The matrix maps the plane onto a line or a point.
    #[error("the matrix is singular")]
    Singular,
}

impl Homography {
    /// The map that leaves every point where it is.
    pub const IDENTITY: Self = Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);

    /// A homography with the matrix `rows`.
    ///
    /// # Errors
    /// [`HomographyError::Singular`] if it cannot be inverted.
    pub fn new(rows: [[f64; 3]; 3]) -> Result<Self, HomographyError> {
        let [[a, b, c], [d, e, f], [g, h, i]] = rows;
        let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
        if determinant.is_normal() { Ok(Self(rows)) } else { Err(HomographyError::Singular) }
    }

    /// Translation by `(x, y)`.
    pub fn translation(x: f64, y: f64) -> Self {
        Self([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
    }

    /// Scaling about the origin.
    pub fn scaling(factor: f64) -> Self {
        Self([[factor, 0.0, 0.0], [0.0, factor, 0.0], [0.0, 0.0, 1.0]])
    }

    /// Rotation about the origin by twice the angle with tangent `half_tangent`, clockwise if it is positive, because y
    /// points down. It takes no trigonometric functions, so that the matrix is equal on every machine.
    pub fn rotation(half_tangent: f64) -> Self {
        let norm = 1.0 + half_tangent * half_tangent;
        let (cos, sin) = ((1.0 - half_tangent * half_tangent) / norm, 2.0 * half_tangent / norm);
        Self([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    }

    /// Division by `1 + x · horizontal + y · vertical`: the view of a plane that leans away from the viewer.
    pub fn perspective(horizontal: f64, vertical: f64) -> Self {
        Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [horizontal, vertical, 1.0]])
    }

    /// The composition of this map, which is applied first, and `next`.
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

    /// The inverse map, scaled so that its last entry is 1; `None` if there is none, or if its last entry is 0.
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

    /// The map with a matrix whose last entry is 1. That entry must not be 0, which holds if the origin is mapped to a
    /// finite point.
    #[must_use]
    pub fn normalized(&self) -> Self {
        let last = self.0[2][2];
        Self(self.0.map(|row| row.map(|cell| cell / last)))
    }

    /// The image of `point`; `None` if that is at infinity or behind the camera. For homographies and points from outside,
    /// such as estimates and data sets.
    pub fn project(&self, point: PixelPoint) -> Option<PixelPoint> {
        let [x, y, w] = self.homogeneous([point.x, point.y]);
        // The sign of a homography is free. Data sets scale the last entry to 1, so a negative one is a flipped sign.
        let sign = if self.0[2][2] < 0.0 { -1.0 } else { 1.0 };
        (sign * w > 1e-9).then(|| PixelPoint { x: x / w, y: y / w })
    }

    /// The image of `(x, y)` without the checks of [`project`](Self::project): of a point behind the camera it is a finite
    /// but meaningless point, of one at infinity NaN or infinity. For maps that keep all their points in front of the
    /// camera by construction.
    pub fn project_unchecked(&self, point: [f64; 2]) -> [f64; 2] {
        let [x, y, w] = self.homogeneous(point);
        [x / w, y / w]
    }

    /// The matrix, row by row.
    pub fn rows(&self) -> [[f64; 3]; 3] {
        self.0
    }

    /// The matrix times `(x, y, 1)`.
    fn homogeneous(&self, [x, y]: [f64; 2]) -> [f64; 3] {
        self.0.map(|[a, b, c]| a * x + b * y + c)
    }
}

impl FromStr for Homography {
    type Err = HomographyError;

    /// Parses nine numbers separated by white space, row by row.
    fn from_str(text: &str) -> Result<Self, HomographyError> {
        let numbers = text
            .split_whitespace()
            .map(|word| match word.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(HomographyError::Number { word: word.chars().take(40).collect() }),
            })
            .collect::<Result<Vec<f64>, _>>()?;
        let &[a, b, c, d, e, f, g, h, i] = numbers.as_slice() else {
            return Err(HomographyError::Count { count: numbers.len() });
        };
        Self::new([[a, b, c], [d, e, f], [g, h, i]])
    }
}

/// Prints three lines of three numbers, with enough digits to parse equal bits.
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
    fn texts_are_parsed_and_points_projected() {
        let shift: Homography = "1 0 5\n0 1 -2.5\n0 0 1\n".parse().unwrap();
        assert_eq!(shift.project(PixelPoint { x: 1.0, y: 2.0 }), Some(PixelPoint { x: 6.0, y: -0.5 }));
        let perspective: Homography = "2 0 0 0 2 0 0.5 0 1".parse().unwrap();
        assert_eq!(perspective.project(PixelPoint { x: 2.0, y: 3.0 }), Some(PixelPoint { x: 2.0, y: 3.0 }));
        assert_eq!(perspective.project(PixelPoint { x: -2.0, y: 3.0 }), None);
        let negated: Homography = "-2 0 0 0 -2 0 -0.5 0 -1".parse().unwrap();
        assert_eq!(negated.project(PixelPoint { x: 2.0, y: 3.0 }), Some(PixelPoint { x: 2.0, y: 3.0 }));
    }

    #[test]
    fn invalid_texts_are_refused() {
        let parse = |text: &str| text.parse::<Homography>().unwrap_err();
        assert_eq!(parse("1 2 3"), HomographyError::Count { count: 3 });
        assert_eq!(parse("1 0 0 0 1 0 0 0 nan"), HomographyError::Number { word: "nan".to_owned() });
        assert_eq!(parse("0 0 0 0 0 0 0 0 0"), HomographyError::Singular);
    }

    #[test]
    fn a_half_tangent_of_one_is_a_quarter_turn() {
        let quarter = Homography::rotation(1.0).project_unchecked([1.0, 0.0]);
        assert!((quarter[0]).abs() < 1e-15 && (quarter[1] - 1.0).abs() < 1e-15);
    }

    #[test]
    fn a_singular_map_has_no_inverse() {
        assert_eq!(Homography([[1.0, 2.0, 0.0], [2.0, 4.0, 0.0], [0.0, 0.0, 1.0]]).inverse(), None);
    }

    proptest! {
        #[test]
        fn the_inverse_maps_points_back(
            turn in -0.3..0.3_f64, scale in 0.5..2.0_f64, lean in -3e-4..3e-4_f64,
            shift in -90.0..90.0_f64, x in 0.0..480.0_f64, y in 0.0..360.0_f64,
        ) {
            let map = Homography::rotation(turn)
                .then(&Homography::scaling(scale))
                .then(&Homography::perspective(lean, -lean))
                .then(&Homography::translation(shift, -shift));
            let back = map.inverse().unwrap().project_unchecked(map.project_unchecked([x, y]));
            prop_assert!((back[0] - x).abs() < 1e-8 && (back[1] - y).abs() < 1e-8);
        }

        #[test]
        fn printing_and_parsing_keeps_the_bits(cells in prop::array::uniform9(-1e6..1e6_f64)) {
            let [a, b, c, d, e, f, g, h, i] = cells;
            let text = Homography([[a, b, c], [d, e, f], [g, h, i]]).to_string();
            let parsed: Vec<f64> = text.split_whitespace().map(|x| x.parse().unwrap()).collect();
            prop_assert_eq!(parsed, cells.to_vec());
        }
    }
}
