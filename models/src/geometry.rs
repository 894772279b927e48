//! Sizes of pictures, of a model's input, and of the grids of its layers.
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

/// The size that a picture is resized to for a model: the longer side becomes `side_px` pixels (up or down),
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn inference_sizes_are_multiples_and_their_longer_side_is_the_nearest_to_the_one_asked_for(
            (width, height) in (1_u32..=1 << 20, 1_u32..=1 << 20),
            side_px in 1..=MAX_SIDE_PX,
        ) {
            let found = inference_size(size(width, height), side_px);
            for side in [found.width, found.height] {
                prop_assert!(side >= CELL_MULTIPLE_PX && side.is_multiple_of(CELL_MULTIPLE_PX));
            }
            let longer = found.longer_side();
            prop_assert!(longer == CELL_MULTIPLE_PX || longer.abs_diff(side_px) <= CELL_MULTIPLE_PX / 2);
            // The ratio is kept up to half a multiple of each side.
            let exact = f64::from(side_px) / f64::from(width.max(height));
            for (before, after) in [(width, found.width), (height, found.height)] {
                let wanted = (f64::from(before) * exact).max(f64::from(CELL_MULTIPLE_PX));
                prop_assert!((f64::from(after) - wanted).abs() <= f64::from(CELL_MULTIPLE_PX) / 2.0 + 1e-6);
            }
            let turned = inference_size(size(height, width), side_px);
            prop_assert_eq!((turned.width, turned.height), (found.height, found.width));
        }

        #[test]
        fn cells_of_every_layer_tile_an_inference_size(
            (width, height) in (1_u32..=4096, 1_u32..=4096),
            side_px in 1..=MAX_SIDE_PX,
            power in 0..=CELL_MULTIPLE_PX.ilog2(),
        ) {
            let input = inference_size(size(width, height), side_px);
            let stride_px = 1 << power;
            let cells = grid(input, stride_px);
            prop_assert_eq!(cells.width * stride_px as usize, input.width as usize);
            prop_assert_eq!(cells.height * stride_px as usize, input.height as usize);
            prop_assert_eq!(cells.cells() as u64 * u64::from(stride_px * stride_px), input.pixels());
        }

        #[test]
        fn grids_cover_any_input_and_no_row_or_column_lies_outside(
            (width, height) in (1_u32..=4096, 1_u32..=4096),
            stride_px in 1_u32..=64,
        ) {
            let cells = grid(size(width, height), stride_px);
            for (count, length) in [(cells.width as u32, width), (cells.height as u32, height)] {
                prop_assert!(count * stride_px >= length && (count - 1) * stride_px < length);
            }
        }
    }

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
