//! Pixel coordinates of an image, cell coordinates of a feature map, and the conversion between them.
//!
//! `(0, 0)` is the *centre* of the top-left pixel, or of the top-left cell. With a grid `gw` cells wide over an image
//! `width` pixels wide, the centre of cell `j` is at `x = (j + 0.5) · width / gw − 0.5`.

use densecl_models::geometry::GridSize;

use crate::image::ImageSize;

/// A point of an image in pixels, x to the right and y down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelPoint {
    /// Pixels to the right of the centre of the top-left pixel.
    pub x: f64,
    /// Pixels below the centre of the top-left pixel.
    pub y: f64,
}

impl From<[f64; 2]> for PixelPoint {
    fn from([x, y]: [f64; 2]) -> Self {
        Self { x, y }
    }
}

impl From<PixelPoint> for [f64; 2] {
    fn from(point: PixelPoint) -> Self {
        [point.x, point.y]
    }
}

/// A point of a feature map in cells, x to the right and y down, fractional between the centres of cells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellPoint {
    /// Columns to the right of the first column's centre.
    pub x: f64,
    /// Rows below the first row's centre.
    pub y: f64,
}

/// The size of a cell in pixels of the image. A pixel coordinate is `(cell + 0.5) · scale − 0.5`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CellScale {
    /// Pixels a column.
    pub x: f64,
    /// Pixels a row.
    pub y: f64,
}

/// The size of an image and the grid of cells that tiles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the image, after its EXIF orientation is applied and before it is resized for the model.
    pub image: ImageSize,
    /// The feature map's cells.
    pub grid: GridSize,
}

impl Geometry {
    /// Pixels per cell.
    pub fn cell_scale(self) -> CellScale {
        CellScale {
            x: f64::from(self.image.width) / self.grid.width as f64,
            y: f64::from(self.image.height) / self.grid.height as f64,
        }
    }

    /// The point of the image at a point of the map.
    pub fn pixel_from_cell(self, cell: CellPoint) -> PixelPoint {
        let scale = self.cell_scale();
        PixelPoint { x: (cell.x + 0.5) * scale.x - 0.5, y: (cell.y + 0.5) * scale.y - 0.5 }
    }

    /// The point of the map at a point of the image.
    pub fn cell_from_pixel(self, pixel: PixelPoint) -> CellPoint {
        let scale = self.cell_scale();
        CellPoint { x: (pixel.x + 0.5) / scale.x - 0.5, y: (pixel.y + 0.5) / scale.y - 0.5 }
    }

    /// The centre of the cell at `index`, in row-major order, as a point of the image.
    pub fn cell_center(self, index: usize) -> PixelPoint {
        let (row, column) = (index / self.grid.width, index % self.grid.width);
        self.pixel_from_cell(CellPoint { x: column as f64, y: row as f64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn geometry(width: u32, height: u32, columns: usize, rows: usize) -> Geometry {
        Geometry { image: ImageSize { width, height }, grid: GridSize { width: columns, height: rows } }
    }

    #[test]
    fn cells_tile_the_image() {
        let geometry = geometry(640, 480, 20, 15);
        assert_eq!(geometry.cell_center(0), PixelPoint { x: 15.5, y: 15.5 });
        assert_eq!(geometry.cell_center(299), PixelPoint { x: 623.5, y: 463.5 });
        assert_eq!(geometry.cell_from_pixel(PixelPoint { x: -0.5, y: 479.5 }), CellPoint { x: -0.5, y: 14.5 });
    }

    #[test]
    fn a_pixel_sized_grid_is_the_identity() {
        let cell = geometry(7, 5, 7, 5).cell_from_pixel(PixelPoint { x: 3.25, y: 1.5 });
        assert!((cell.x - 3.25).abs() < 1e-12 && (cell.y - 1.5).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn pixel_to_cell_and_back(
            (width, height) in (1_u32..10_000, 1_u32..10_000),
            (columns, rows) in (1_usize..400, 1_usize..400),
            (u, v) in (0.0_f64..1.0, 0.0_f64..1.0),
        ) {
            let geometry = geometry(width, height, columns, rows);
            let pixel = PixelPoint { x: u * f64::from(width) - 0.5, y: v * f64::from(height) - 0.5 };
            let back = geometry.pixel_from_cell(geometry.cell_from_pixel(pixel));
            prop_assert!((back.x - pixel.x).abs() < 1e-8 && (back.y - pixel.y).abs() < 1e-8);
        }
    }
}
