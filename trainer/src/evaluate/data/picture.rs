//! The pixels of an image file, and rectangles of it at another size.

use std::path::Path;

use densecl_vision::image::{ImageSize, PixelRectangle, RgbImage, resize_rectangle};
use tch::Tensor;

use super::DataError;
use crate::data::decode::read_picture;

/// Side of the central square over the shorter side of the image, as in ImageNet's test crops.
const CENTRE_SHARE: f64 = 224.0 / 256.0;

/// An upright RGB image.
#[derive(Clone, Debug)]
pub struct Picture(RgbImage);

impl Picture {
    /// Reads an image file.
    ///
    /// # Errors
    /// If it cannot be read or decoded.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        read_picture(path).map(Self).map_err(|source| DataError::Image { path: path.to_owned(), source })
    }

    /// Width and height.
    pub fn size(&self) -> ImageSize {
        self.0.dimensions().into()
    }

    /// Resizes a rectangle of the image by an antialiased bilinear filter; RGB bytes `[height, width, 3]`.
    pub(crate) fn resized(&self, rectangle: PixelRectangle, size: ImageSize) -> Vec<u8> {
        resize_rectangle(&self.0, rectangle, size).expect("the rectangle lies inside of the image").into_raw()
    }

    /// The central square, 7/8 of the shorter side, resized to `side_px`; RGB bytes `[side, side, 3]`.
    pub(crate) fn centre_square(&self, side_px: u32) -> Vec<u8> {
        let (width_px, height_px) = self.0.dimensions();
        let (width_px, height_px) = (f64::from(width_px), f64::from(height_px));
        let side = width_px.min(height_px) * CENTRE_SHARE;
        let (left_px, top_px) = ((width_px - side) / 2.0, (height_px - side) / 2.0);
        let square = PixelRectangle { left_px, top_px, width_px: side, height_px: side };
        self.resized(square, ImageSize { width: side_px, height: side_px })
    }

    /// uint8 `[1, H, W, 3]`.
    pub fn tensor(&self) -> Tensor {
        let (width_px, height_px) = self.0.dimensions();
        Tensor::from_slice(self.0.as_raw()).view([1, i64::from(height_px), i64::from(width_px), 3])
    }
}

impl From<RgbImage> for Picture {
    fn from(picture: RgbImage) -> Self {
        Self(picture)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_central_square_has_the_middle_of_the_image() {
        // Grey levels rise along x, so that the mean of a square tells where its centre is.
        let picture = Picture::from(RgbImage::from_fn(96, 32, |x, _| image::Rgb([x as u8; 3])));
        let square = picture.centre_square(14);
        assert_eq!(square.len(), 14 * 14 * 3);
        let mean = square.iter().map(|&level| f64::from(level)).sum::<f64>() / square.len() as f64;
        assert!((mean - 47.5).abs() < 0.51, "{mean}");
        // 28 of the 32 rows, two pixels to each of 14.
        assert!((f64::from(square[3]) - f64::from(square[0]) - 2.0).abs() < 1.01);
    }
}
