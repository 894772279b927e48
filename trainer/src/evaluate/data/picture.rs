//! Pixels of an image file, and windows of them at another size.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::ImageError;
use tch::Tensor;

use super::DataError;
use crate::data::decode;

/// Side of the central square over the shorter side of the image, as in ImageNet's test crops.
const CENTRE_SHARE: f64 = 224.0 / 256.0;

/// An upright image of RGB bytes in row order.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Pixels along x.
    pub width_px: u32,
    /// Pixels along y.
    pub height_px: u32,
    /// `[height, width, 3]`.
    pub pixels: Vec<u8>,
}

/// A rectangle of an image in its pixels; it lies inside of the image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Distance from the left border.
    pub left: f64,
    /// Distance from the top border.
    pub top: f64,
    /// Extent along x.
    pub width: f64,
    /// Extent along y.
    pub height: f64,
}

impl Picture {
    /// Reads an image file.
    ///
    /// # Errors
    /// If it cannot be read or decoded.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let image = File::open(path)
            .map_err(ImageError::IoError)
            .and_then(|file| decode::upright_rgb(BufReader::new(file)))
            .map_err(|source| DataError::Image { path: path.to_owned(), source })?;
        Ok(Self { width_px: image.width(), height_px: image.height(), pixels: image.into_raw() })
    }

    /// A window resized to `width_px` × `height_px` by an antialiased bilinear filter, as RGB bytes.
    pub(crate) fn resized(&self, window: Window, width_px: u32, height_px: u32) -> Vec<u8> {
        let Window { left, top, width, height } = window;
        let source = ImageRef::new(self.width_px, self.height_px, &self.pixels, PixelType::U8x3)
            .expect("there are three bytes for each pixel");
        let mut target = Image::new(width_px, height_px, PixelType::U8x3);
        let filter = ResizeAlg::Convolution(FilterType::Bilinear);
        let options = ResizeOptions::new().resize_alg(filter).crop(left, top, width, height);
        Resizer::new().resize(&source, &mut target, &options).expect("the window lies inside of the image");
        target.into_vec()
    }

    /// The central square, 7/8 of the shorter side, resized to `side_px`; RGB bytes.
    pub(crate) fn centre_square(&self, side_px: u32) -> Vec<u8> {
        let (width, height) = (f64::from(self.width_px), f64::from(self.height_px));
        let side = width.min(height) * CENTRE_SHARE;
        let window = Window { left: (width - side) / 2.0, top: (height - side) / 2.0, width: side, height: side };
        self.resized(window, side_px, side_px)
    }

    /// uint8 `[1, H, W, 3]`.
    pub fn tensor(&self) -> Tensor {
        Tensor::from_slice(&self.pixels).view([1, i64::from(self.height_px), i64::from(self.width_px), 3])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_centre_is_what_lies_around_the_middle() {
        // Grey levels rise along x, so that the mean of a square tells where its centre is.
        let row = (0..96_u8).flat_map(|x| [x; 3]);
        let pixels: Vec<u8> = (0..32).flat_map(|_| row.clone()).collect();
        let picture = Picture { width_px: 96, height_px: 32, pixels };
        let square = picture.centre_square(14);
        assert_eq!(square.len(), 14 * 14 * 3);
        let mean = square.iter().map(|&level| f64::from(level)).sum::<f64>() / square.len() as f64;
        assert!((mean - 47.5).abs() < 0.51, "{mean}");
        // 28 of the 32 rows, two pixels to each of 14.
        assert!((f64::from(square[3]) - f64::from(square[0]) - 2.0).abs() < 1.01);
    }
}
