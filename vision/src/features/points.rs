//! Points that are known to lie in an image.

use super::PixelPoint;
use crate::image::ImageSize;

/// Points that are finite and within `[-0.5, width − 0.5] × [-0.5, height − 0.5]` of an image.
#[derive(Clone, Debug, PartialEq)]
pub struct ImagePoints(Vec<PixelPoint>);

/// The first point that is not in the image.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PointError {
    /// A coordinate is NaN or infinite.
    #[error("point {index} is not finite: ({}, {})", point.x, point.y)]
    NotFinite {
        /// Its index in the list.
        index: usize,
        /// The point.
        point: PixelPoint,
    },
    /// A point is outside the image.
    #[error(
        "point {index} at ({}, {}) is outside the {} x {} image: x must be within [-0.5, {}] and y within [-0.5, {}]",
        point.x, point.y, image.width, image.height, f64::from(image.width) - 0.5, f64::from(image.height) - 0.5
    )]
    Outside {
        /// Its index in the list.
        index: usize,
        /// The point.
        point: PixelPoint,
        /// Size of the image.
        image: ImageSize,
    },
}

/// The reason why a grid of points was refused.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GridError {
    /// The spacing is not a finite number of at least one pixel.
    #[error("the grid spacing must be a number of at least 1 pixel, not {spacing_px}")]
    Spacing {
        /// The requested spacing.
        spacing_px: f64,
    },
    /// The grid has too many points.
    #[error("a grid of {spacing_px} pixels puts {count} points in this image, and at most {max_points} are allowed")]
    TooManyPoints {
        /// The requested spacing.
        spacing_px: f64,
        /// The number of points of such a grid.
        count: usize,
        /// The limit.
        max_points: usize,
    },
}

impl ImagePoints {
    /// Checks that all `points` are in the image.
    ///
    /// # Errors
    /// [`PointError`] for the first point that is not finite or is outside the image.
    pub fn new(points: Vec<PixelPoint>, image: ImageSize) -> Result<Self, PointError> {
        let (max_x, max_y) = (f64::from(image.width) - 0.5, f64::from(image.height) - 0.5);
        for (index, &point) in points.iter().enumerate() {
            if !(point.x.is_finite() && point.y.is_finite()) {
                return Err(PointError::NotFinite { index, point });
            }
            if !((-0.5..=max_x).contains(&point.x) && (-0.5..=max_y).contains(&point.y)) {
                return Err(PointError::Outside { index, point, image });
            }
        }
        Ok(Self(points))
    }

    /// A grid of points, row by row, `spacing_px` pixels apart in both directions and centred in the image. It has at
    /// least one point.
    ///
    /// # Errors
    /// [`GridError`] if the spacing is not a finite number of at least 1, or gives more than `max_points` points.
    pub fn grid(image: ImageSize, spacing_px: f64, max_points: usize) -> Result<Self, GridError> {
        if !(spacing_px.is_finite() && spacing_px >= 1.0) {
            return Err(GridError::Spacing { spacing_px });
        }
        let along = |length: u32| ((f64::from(length) / spacing_px) as usize).max(1);
        let (columns, rows) = (along(image.width), along(image.height));
        let count = columns.saturating_mul(rows);
        if count > max_points {
            return Err(GridError::TooManyPoints { spacing_px, count, max_points });
        }
        let first = |length: u32, steps: usize| (f64::from(length) - 1.0 - (steps - 1) as f64 * spacing_px) / 2.0;
        let (x0, y0) = (first(image.width, columns), first(image.height, rows));
        let point = |index: usize| PixelPoint {
            x: x0 + (index % columns) as f64 * spacing_px,
            y: y0 + (index / columns) as f64 * spacing_px,
        };
        Ok(Self((0..count).map(point).collect()))
    }

    /// The points, in their order.
    pub fn as_slice(&self) -> &[PixelPoint] {
        &self.0
    }

    /// The number of points.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are no points.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: ImageSize = ImageSize { width: 64, height: 48 };

    #[test]
    fn the_border_is_inside() {
        let corners = vec![PixelPoint { x: -0.5, y: -0.5 }, PixelPoint { x: 63.5, y: 47.5 }];
        assert_eq!(ImagePoints::new(corners, IMAGE).unwrap().len(), 2);
    }

    #[test]
    fn the_first_invalid_point_is_named_with_the_limits() {
        let points = vec![PixelPoint { x: 1.0, y: 1.0 }, PixelPoint { x: 63.6, y: 0.0 }];
        let error = ImagePoints::new(points, IMAGE).unwrap_err();
        assert!(matches!(error, PointError::Outside { index: 1, .. }));
        assert!(error.to_string().contains("[-0.5, 63.5]"), "{error}");
        let points = vec![PixelPoint { x: f64::NAN, y: 1.0 }];
        assert!(matches!(ImagePoints::new(points, IMAGE), Err(PointError::NotFinite { index: 0, .. })));
        let points = vec![PixelPoint { x: 0.0, y: f64::INFINITY }];
        assert!(matches!(ImagePoints::new(points, IMAGE), Err(PointError::NotFinite { index: 0, .. })));
    }

    #[test]
    fn a_grid_is_centred() {
        let grid = ImagePoints::grid(IMAGE, 16.0, 100).unwrap();
        assert_eq!(grid.len(), 12);
        assert_eq!(grid.as_slice()[0], PixelPoint { x: 7.5, y: 7.5 });
        assert_eq!(grid.as_slice()[11], PixelPoint { x: 55.5, y: 39.5 });
    }

    #[test]
    fn impossible_grids_are_refused() {
        assert!(matches!(ImagePoints::grid(IMAGE, f64::NAN, 100), Err(GridError::Spacing { .. })));
        assert!(matches!(ImagePoints::grid(IMAGE, 0.0, 100), Err(GridError::Spacing { .. })));
        assert!(matches!(ImagePoints::grid(IMAGE, 1.0, 100), Err(GridError::TooManyPoints { count: 3072, .. })));
        assert_eq!(ImagePoints::grid(IMAGE, 1e9, 100).unwrap().len(), 1);
    }

    proptest! {
        #[test]
        fn grids_lie_inside(width in 1_u32..300, height in 1_u32..300, spacing in 1.0_f64..400.0) {
            let image = ImageSize { width, height };
            let grid = ImagePoints::grid(image, spacing, usize::MAX).unwrap();
            prop_assert!(ImagePoints::new(grid.as_slice().to_vec(), image).is_ok());
        }
    }
}
