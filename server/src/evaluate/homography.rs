//! Projective maps between pictures.

use crate::features::PixelPoint;

/// A 3×3 matrix, row by row, that takes `(x, y, 1)` of one picture to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Homography([[f64; 3]; 3]);

/// Why a text is not a homography.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum HomographyError {
    /// Something in it is not a finite number.
    #[error("`{word}` is not a finite number")]
    Number {
        /// What is there instead.
        word: String,
    },
    /// It does not have nine numbers.
    #[error("a homography has 9 numbers, and here are {count}")]
    Count {
        /// How many it has.
        count: usize,
    },
    /// It maps the plane onto a line or a point.
    #[error("the matrix is singular")]
    Singular,
}

impl Homography {
    /// Takes a matrix, row by row.
    ///
    /// # Errors
    /// [`HomographyError::Singular`] if it cannot be inverted.
    pub fn new(rows: [[f64; 3]; 3]) -> Result<Self, HomographyError> {
        let [[a, b, c], [d, e, f], [g, h, i]] = rows;
        let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
        if determinant.is_normal() { Ok(Self(rows)) } else { Err(HomographyError::Singular) }
    }

    /// Where `point` goes; nothing if it goes to infinity or behind the camera.
    pub fn project(&self, point: PixelPoint) -> Option<PixelPoint> {
        let [x, y, w] = self.0.map(|[a, b, c]| a * point.x + b * point.y + c);
        // The sign of a homography is free; `HPatches` and everyone else scale the last entry to 1.
        let w = if self.0[2][2] < 0.0 { -w } else { w };
        let (x, y) = if self.0[2][2] < 0.0 { (-x, -y) } else { (x, y) };
        (w > 1e-9).then(|| PixelPoint { x: x / w, y: y / w })
    }
}

impl std::str::FromStr for Homography {
    type Err = HomographyError;

    /// Nine numbers separated by white space, row by row.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_projects() {
        let shift: Homography = "1 0 5\n0 1 -2.5\n0 0 1\n".parse().unwrap();
        assert_eq!(shift.project(PixelPoint { x: 1.0, y: 2.0 }), Some(PixelPoint { x: 6.0, y: -0.5 }));
        let perspective: Homography = "2 0 0 0 2 0 0.5 0 1".parse().unwrap();
        assert_eq!(perspective.project(PixelPoint { x: 2.0, y: 3.0 }), Some(PixelPoint { x: 2.0, y: 3.0 }));
        assert_eq!(perspective.project(PixelPoint { x: -2.0, y: 3.0 }), None);
        let negated: Homography = "-2 0 0 0 -2 0 -0.5 0 -1".parse().unwrap();
        assert_eq!(negated.project(PixelPoint { x: 2.0, y: 3.0 }), Some(PixelPoint { x: 2.0, y: 3.0 }));
    }

    #[test]
    fn nonsense_is_named() {
        let parse = |text: &str| text.parse::<Homography>().unwrap_err();
        assert_eq!(parse("1 2 3"), HomographyError::Count { count: 3 });
        assert_eq!(parse("1 0 0 0 1 0 0 0 nan"), HomographyError::Number { word: "nan".to_owned() });
        assert_eq!(parse("0 0 0 0 0 0 0 0 0"), HomographyError::Singular);
    }
}
