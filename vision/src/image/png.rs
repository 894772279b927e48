//! Pictures out.

use ::image::codecs::png::{CompressionType, FilterType, PngEncoder};
use ::image::{ExtendedColorType, ImageEncoder, RgbImage};

/// A picture that could not be written as PNG.
#[derive(Debug, thiserror::Error)]
#[error("the picture could not be written as PNG")]
pub struct PngError(#[from] ::image::ImageError);

/// The bytes of `picture` as a PNG file, compressed for speed rather than size.
///
/// # Errors
/// [`PngError`] if the encoder refuses (a side of 0).
pub fn encode_png(picture: &RgbImage) -> Result<Vec<u8>, PngError> {
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Fast, FilterType::Adaptive).write_image(
        picture.as_raw(),
        picture.width(),
        picture.height(),
        ExtendedColorType::Rgb8,
    )?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{DecodeLimits, decode};
    use ::image::Rgb;

    #[test]
    fn written_pictures_read_back() {
        let picture = RgbImage::from_fn(31, 17, |x, y| Rgb([(x * 8) as u8, (y * 15) as u8, (x * y) as u8]));
        let file = encode_png(&picture).unwrap();
        assert_eq!(decode(&file, &DecodeLimits { max_pixels: 1000 }).unwrap(), picture);
    }
}
