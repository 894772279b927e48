//! Sizes of pictures, of what a model sees, and of the grids of its layers.
//!
//! Both sides of a model's input are multiples of [`CELL_MULTIPLE_PX`], the coarsest stride, so that the cells of every
//! layer tile the input exactly.

/// Both sides of every picture given to a model are multiples of this, in pixels.
pub const CELL_MULTIPLE_PX: u32 = 32;

/// Longest side of a model's input that can be configured, in pixels.
pub const MAX_SIDE_PX: u32 = 16_384;

/// Width and height of a picture in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageSize {
    /// Pixels from left to right.
    pub width: u32,
    /// Pixels from top to bottom.
    pub height: u32,
}

impl ImageSize {
    /// The commonest shape of a photograph: four wide, three high. Only the ratio means anything.
    pub const LANDSCAPE_PHOTOGRAPH: Self = Self { width: 4, height: 3 };

    /// Number of pixels.
    pub fn pixels(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The longer of the two sides.
    pub fn longer_side(self) -> u32 {
        self.width.max(self.height)
    }
}

impl From<(u32, u32)> for ImageSize {
    /// Takes `(width, height)`, as the `dimensions()` of the `image` crate's types.
    fn from((width, height): (u32, u32)) -> Self {
        Self { width, height }
    }
}

/// The size a picture is resized to before a model sees it: the longer side becomes `side_px` pixels (up or down),
/// then each side is rounded to the nearest multiple of [`CELL_MULTIPLE_PX`] (halves upwards, at least one
/// multiple).
///
/// ```
/// # use densecl_models::geometry::{ImageSize, inference_size};
/// let photo = ImageSize { width: 640, height: 480 };
/// assert_eq!(inference_size(photo, 512), ImageSize { width: 512, height: 384 });
/// ```
pub fn inference_size(picture: ImageSize, side_px: u32) -> ImageSize {
    let longer = u64::from(picture.longer_side().max(1));
    let side = |length: u32| {
        // round(length * side / longer / 32) in integers, so that halves never depend on float rounding.
        let multiple = u64::from(CELL_MULTIPLE_PX);
        let doubled = 2 * u128::from(length) * u128::from(side_px) + u128::from(longer * multiple);
        let cells = (doubled / (2 * u128::from(longer * multiple))).max(1) as u64;
        u32::try_from(cells * multiple).unwrap_or(u32::MAX / CELL_MULTIPLE_PX * CELL_MULTIPLE_PX)
    };
    ImageSize { width: side(picture.width), height: side(picture.height) }
}

/// Width and height of a feature map in cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GridSize {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl GridSize {
    /// Number of cells.
    pub fn cells(self) -> usize {
        self.width * self.height
    }
}

/// The grid of a layer of this stride, for a model's input.
///
/// ```
/// # use densecl_models::geometry::{GridSize, ImageSize, grid};
/// let input = ImageSize { width: 512, height: 384 };
/// assert_eq!(grid(input, 16), GridSize { width: 32, height: 24 });
/// ```
pub const fn grid(input: ImageSize, stride_px: u32) -> GridSize {
    GridSize { width: input.width.div_ceil(stride_px) as usize, height: input.height.div_ceil(stride_px) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(width: u32, height: u32) -> ImageSize {
        ImageSize { width, height }
    }

    #[test]
    fn longer_side_becomes_side_and_both_are_multiples() {
        assert_eq!(inference_size(size(640, 480), 512), size(512, 384));
        assert_eq!(inference_size(size(480, 640), 512), size(384, 512));
        assert_eq!(inference_size(size(100, 100), 224), size(224, 224));
        assert_eq!(inference_size(size(1000, 333), 500), size(512, 160));
    }

    #[test]
    fn a_sliver_keeps_one_cell() {
        assert_eq!(inference_size(size(50_000, 1), 512), size(512, 32));
        assert_eq!(inference_size(size(1, 1), 1), size(32, 32));
    }

    #[test]
    fn halves_round_upwards() {
        assert_eq!(inference_size(size(48, 48), 48), size(64, 64));
        assert_eq!(inference_size(size(47, 47), 47), size(32, 32));
    }
}
