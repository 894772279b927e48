//! From an image file's bytes to a square canvas.

use std::io::{BufRead, Seek};

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader, ImageResult, RgbImage};

use crate::augment::ImageSize;

/// File name endings that are taken for images.
pub(crate) const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// Whether `extension` is one of [`EXTENSIONS`], in capitals or not.
pub(crate) fn is_image_extension(extension: &str) -> bool {
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Decodes by content and turns the image the right way up.
pub(crate) fn upright_rgb(source: impl BufRead + Seek) -> ImageResult<RgbImage> {
    let mut decoder = ImageReader::new(source).with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Decodes and squeezes the image onto the canvas, `[canvas_px, canvas_px, 3]` RGB, with an
/// antialiased bilinear filter. Returns the size it had.
pub(super) fn draw(source: impl BufRead + Seek, canvas_px: u32, canvas: &mut [u8]) -> ImageResult<ImageSize> {
    let image = upright_rgb(source)?;
    let size = ImageSize { width: image.width(), height: image.height() };
    squeeze(&image, canvas_px, canvas).map_err(|error| ImageError::IoError(std::io::Error::other(error)))?;
    Ok(size)
}

fn squeeze(
    image: &RgbImage,
    canvas_px: u32,
    canvas: &mut [u8],
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let source = ImageRef::new(image.width(), image.height(), image.as_raw(), PixelType::U8x3)?;
    let mut target = Image::from_slice_u8(canvas_px, canvas_px, canvas, PixelType::U8x3)?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    Resizer::new().resize(&source, &mut target, &options)?;
    Ok(())
}
