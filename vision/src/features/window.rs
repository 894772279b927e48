//! Windows: a rectangle of an image and a raster of sample positions in it.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::{CellPoint, CellScale, Geometry, GridSize, PixelPoint};
use crate::image::ImageSize;

/// Largest number of sample positions along one side. An image of a single row can have millions of columns.
pub const MAX_PLACES_PER_SIDE: u32 = 1 << 16;

/// The raster of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resolution {
    /// The map's own cells.
    #[default]
    Grid,
    /// A sample position at every pixel.
    Pixel,
    /// A given number of sample positions, evenly spaced.
    Size {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

/// A rectangle of whole pixels: columns `x` to `x + width − 1`, rows `y` to `y + height − 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub x: u32,
    /// First row.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// A text that is not a resolution or a rectangle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}")]
pub struct ParseWindowError {
    expected: &'static str,
}

impl FromStr for Resolution {
    type Err = ParseWindowError;

    /// Reads `grid`, `pixel` or `WxH`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "grid" => Ok(Self::Grid),
            "pixel" => Ok(Self::Pixel),
            size => {
                let size = size.split_once('x').and_then(|(width, height)| Some((read(width)?, read(height)?)));
                let (width, height) =
                    size.ok_or(ParseWindowError { expected: "grid, pixel or WxH, such as 640x480" })?;
                Ok(Self::Size { width, height })
            }
        }
    }
}

impl FromStr for CropBox {
    type Err = ParseWindowError;

    /// Reads `x,y,w,h`, in brackets or without.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let inner = text.trim().strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        let numbers: Option<Vec<u32>> = inner.split(',').map(|number| read(number.trim())).collect();
        match numbers.as_deref() {
            Some(&[x, y, width, height]) => Ok(Self { x, y, width, height }),
            _ => Err(ParseWindowError { expected: "x,y,w,h in whole pixels, such as 0,0,320,240" }),
        }
    }
}

/// Reads digits only, without a sign.
fn read(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for CropBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{},{},{}", self.x, self.y, self.width, self.height)
    }
}

/// The reason why a window is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The rectangle reaches beyond the image, or has no pixels.
    #[error("crop {crop} is not a window of the {} x {} image", image.width, image.height)]
    OutsideImage {
        /// The requested rectangle.
        crop: CropBox,
        /// Size of the image.
        image: ImageSize,
    },
    /// No cell has its centre in the rectangle.
    #[error("no cell of the {} x {} grid has its centre in crop {crop}", grid.width, grid.height)]
    NoCells {
        /// The requested rectangle.
        crop: CropBox,
        /// The map's cells.
        grid: GridSize,
    },
    /// The raster has no positions, or too many.
    #[error(
        "a resolution of {width} x {height} is out of range: each side must be within 1 to {}",
        MAX_PLACES_PER_SIDE
    )]
    Resolution {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
    },
}

/// A rectangle of an image and a raster of sample positions in it, both valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    image: ImageSize,
    crop: CropBox,
    resolution: Resolution,
}

/// Coordinates of the sample positions of a window: position `(i, j)` is at `origin + (i, j) · scale` in the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Placement {
    /// The first position.
    pub origin: PixelPoint,
    /// Pixels from one position to the next.
    pub scale: CellScale,
}

impl Window {
    /// The rectangle `crop` of an image of size `image`, or the whole image.
    ///
    /// # Errors
    /// [`WindowError`] if the rectangle reaches beyond the image, or the resolution is out of range.
    pub fn new(image: ImageSize, crop: Option<CropBox>, resolution: Resolution) -> Result<Self, WindowError> {
        let crop = crop.unwrap_or(CropBox { x: 0, y: 0, width: image.width, height: image.height });
        let fits = |start: u32, length: u32, limit: u32| {
            length > 0 && start.checked_add(length).is_some_and(|end| end <= limit)
        };
        if !(fits(crop.x, crop.width, image.width) && fits(crop.y, crop.height, image.height)) {
            return Err(WindowError::OutsideImage { crop, image });
        }
        let (width, height) = match resolution {
            Resolution::Grid => return Ok(Self { image, crop, resolution }),
            Resolution::Pixel => (crop.width, crop.height),
            Resolution::Size { width, height } => (width, height),
        };
        if [width, height].iter().any(|side| !(1..=MAX_PLACES_PER_SIDE).contains(side)) {
            return Err(WindowError::Resolution { width, height });
        }
        Ok(Self { image, crop, resolution })
    }

    /// The window at its pixels if it is at the map's cells, otherwise unchanged.
    #[must_use]
    pub fn in_pixels(self) -> Self {
        match self.resolution {
            Resolution::Grid => Self { resolution: Resolution::Pixel, ..self },
            Resolution::Pixel | Resolution::Size { .. } => self,
        }
    }

    /// Size of the image.
    pub fn image(&self) -> ImageSize {
        self.image
    }

    /// Columns and rows of sample positions; `None` if these are the map's cells.
    pub fn raster(&self) -> Option<GridSize> {
        match self.resolution {
            Resolution::Grid => None,
            Resolution::Pixel => Some((self.crop.width, self.crop.height)),
            Resolution::Size { width, height } => Some((width, height)),
        }
        .map(|(width, height)| GridSize { width: width as usize, height: height as usize })
    }

    /// Columns and rows of sample positions on a map with `grid`.
    ///
    /// # Errors
    /// [`WindowError::NoCells`] if the window is at cells and no cell's centre is inside.
    pub fn places(&self, grid: GridSize) -> Result<GridSize, WindowError> {
        if let Some(raster) = self.raster() {
            return Ok(raster);
        }
        let CellWindow { columns, rows } = self.cells(grid)?;
        Ok(GridSize { width: columns.len(), height: rows.len() })
    }

    /// The cells whose centres are within the pixels of the window, each pixel a square around its centre. A centre on the
    /// border of two windows belongs to the right or lower one, so that windows which tile the image contain each cell
    /// once.
    ///
    /// # Errors
    /// [`WindowError::NoCells`] if there are none.
    pub fn cells(&self, grid: GridSize) -> Result<CellWindow, WindowError> {
        let geometry = Geometry { image: self.image, grid };
        let within = |start: u32, length: u32, center: &dyn Fn(usize) -> f64, cells: usize| {
            let first = f64::from(start) - 0.5;
            let end = first + f64::from(length);
            let is_before = |limit: f64| (0..cells).take_while(|&cell| center(cell) < limit).count();
            is_before(first)..is_before(end)
        };
        let center_x = |cell: usize| geometry.pixel_from_cell(CellPoint { x: cell as f64, y: 0.0 }).x;
        let center_y = |cell: usize| geometry.pixel_from_cell(CellPoint { x: 0.0, y: cell as f64 }).y;
        let columns = within(self.crop.x, self.crop.width, &center_x, grid.width);
        let rows = within(self.crop.y, self.crop.height, &center_y, grid.height);
        if columns.is_empty() || rows.is_empty() {
            return Err(WindowError::NoCells { crop: self.crop, grid });
        }
        Ok(CellWindow { columns, rows })
    }

    /// Coordinates of the sample positions on a map with `grid`.
    ///
    /// # Errors
    /// Those of [`places`](Self::places).
    pub fn placement(&self, grid: GridSize) -> Result<Placement, WindowError> {
        let Some(raster) = self.raster() else {
            let geometry = Geometry { image: self.image, grid };
            let CellWindow { columns, rows } = self.cells(grid)?;
            let first = CellPoint { x: columns.start as f64, y: rows.start as f64 };
            return Ok(Placement { origin: geometry.pixel_from_cell(first), scale: geometry.cell_scale() });
        };
        let scale = CellScale {
            x: f64::from(self.crop.width) / raster.width as f64,
            y: f64::from(self.crop.height) / raster.height as f64,
        };
        let origin = PixelPoint {
            x: f64::from(self.crop.x) + 0.5 * scale.x - 0.5,
            y: f64::from(self.crop.y) + 0.5 * scale.y - 0.5,
        };
        Ok(Placement { origin, scale })
    }
}

/// A rectangle of at least one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellWindow {
    /// Columns of the map.
    pub columns: Range<usize>,
    /// Rows of the map.
    pub rows: Range<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IMAGE: ImageSize = ImageSize { width: 64, height: 48 };
    const GRID: GridSize = GridSize { width: 4, height: 3 };

    fn window(crop: &str, resolution: &str) -> Result<Window, WindowError> {
        Window::new(IMAGE, Some(crop.parse().unwrap()), resolution.parse().unwrap())
    }

    #[test]
    fn resolutions_and_rectangles_are_parsed() {
        assert_eq!("640x480".parse(), Ok(Resolution::Size { width: 640, height: 480 }));
        for wrong in ["full", "x", "640x", "-1x5", "+1x5", "1x2x3", "", "99999999999x1"] {
            assert!(wrong.parse::<Resolution>().is_err(), "{wrong}");
        }
        let crop = CropBox { x: 1, y: 2, width: 3, height: 4 };
        assert_eq!(("1,2,3,4".parse(), "[1, 2, 3, 4]".parse()), (Ok(crop), Ok(crop)));
        for wrong in ["", "1,2,3", "1,2,3,4,5", "-1,0,2,2", "1.5,0,2,2", "[1,2,3,4", "nan,0,1,1"] {
            assert!(wrong.parse::<CropBox>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn windows_outside_the_image_are_refused() {
        assert!(window("0,0,64,48", "grid").is_ok() && window("63,47,1,1", "pixel").is_ok());
        for outside in ["0,0,65,48", "64,0,1,1", "0,0,0,1", "4294967295,0,2,2", "0,40,4,9"] {
            assert!(matches!(window(outside, "grid"), Err(WindowError::OutsideImage { .. })), "{outside}");
        }
        for resolution in ["0x5", "65537x1"] {
            assert!(matches!(window("0,0,9,9", resolution), Err(WindowError::Resolution { .. })), "{resolution}");
        }
    }

    #[test]
    fn cells_belong_to_the_window_of_their_centre() {
        // Centres at x = 7.5, 23.5, 39.5, 55.5 and y = 7.5, 23.5, 39.5.
        let cells = |crop: &str| window(crop, "grid").unwrap().cells(GRID);
        assert_eq!(cells("0,0,64,48").unwrap(), CellWindow { columns: 0..4, rows: 0..3 });
        assert_eq!(cells("8,8,32,16").unwrap(), CellWindow { columns: 0..2, rows: 0..1 });
        assert_eq!(cells("9,0,40,48").unwrap(), CellWindow { columns: 1..3, rows: 0..3 });
        assert!(matches!(cells("9,9,4,4"), Err(WindowError::NoCells { .. })));
    }

    #[test]
    fn sample_positions_are_evenly_spaced() {
        let at = |crop, resolution: &str| window(crop, resolution).unwrap().placement(GRID).unwrap();
        assert_eq!(at("16,0,20,10", "pixel").origin, PixelPoint { x: 16.0, y: 0.0 });
        assert_eq!(at("16,0,32,48", "grid").origin, PixelPoint { x: 23.5, y: 7.5 });
        let halved = at("10,20,20,10", "10x5");
        assert_eq!((halved.origin, halved.scale.x, halved.scale.y), (PixelPoint { x: 10.5, y: 20.5 }, 2.0, 2.0));
    }

    proptest! {
        #[test]
        fn windows_that_tile_the_image_contain_each_cell_once(split in 1_u32..64, columns in 1_usize..40) {
            let grid = GridSize { width: columns, height: 3 };
            let count = |x, width| {
                let crop = CropBox { x, y: 0, width, height: 48 };
                Window::new(IMAGE, Some(crop), Resolution::Grid).unwrap().cells(grid).map_or(0, |cells| cells.columns.len())
            };
            if split < 64 {
                prop_assert_eq!(count(0, split) + count(split, 64 - split), columns);
            }
        }
    }
}
