//! Positions between the cells of one axis of a map.

/// A position between two cells of an axis, for linear interpolation: `(1 − fraction) · before + fraction · after`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AxisPosition {
    /// Index of the cell before.
    pub before: usize,
    /// Index of the cell after; the last cell has itself after it.
    pub after: usize,
    /// Distance from `before`, from 0 to 1 cell.
    pub fraction: f32,
}

impl AxisPosition {
    /// The position at `cell`, a fractional index on an axis of `cells` cells (at least 1). Positions beyond the
    /// centres of the outermost cells are moved to those centres.
    pub fn new(cell: f64, cells: usize) -> Self {
        let last = cells - 1;
        let clamped = cell.clamp(0.0, last as f64);
        let before = (clamped as usize).min(last);
        Self { before, after: (before + 1).min(last), fraction: (clamped - before as f64) as f32 }
    }

    /// The position of the centre of pixel `pixel` of an image `pixels` wide (or high), on an axis of `cells` cells that
    /// covers the image.
    pub fn from_pixel(pixel: usize, pixels: u32, cells: usize) -> Self {
        Self::new((pixel as f64 + 0.5) * cells as f64 / f64::from(pixels) - 0.5, cells)
    }

    /// The value at this position of an axis whose cells have `values`.
    pub fn interpolate(self, values: &[f32]) -> f32 {
        let (before, after) = (values[self.before], values[self.after]);
        before + (after - before) * self.fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_clamped_to_the_outermost_centres() {
        let position = |cell| AxisPosition::new(cell, 3);
        assert_eq!(position(-0.5), AxisPosition { before: 0, after: 1, fraction: 0.0 });
        assert_eq!(position(1.25), AxisPosition { before: 1, after: 2, fraction: 0.25 });
        assert_eq!(position(2.5), AxisPosition { before: 2, after: 2, fraction: 0.0 });
        assert_eq!(AxisPosition::new(0.0, 1), AxisPosition { before: 0, after: 0, fraction: 0.0 });
    }

    #[test]
    fn pixels_lie_between_the_centres_of_cells() {
        // Eight pixels over two cells: the centres of the cells are at pixels 1.5 and 5.5.
        let values: Vec<f32> =
            (0..8).map(|pixel| AxisPosition::from_pixel(pixel, 8, 2).interpolate(&[0.0, 8.0])).collect();
        assert_eq!(values, [0.0, 0.0, 1.0, 3.0, 5.0, 7.0, 8.0, 8.0]);
    }
}
