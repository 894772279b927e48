//! TIFF: the first page, in strips or tiles.

mod directory;

use ::image::metadata::Orientation;
use ::image::{ImageFormat, RgbImage};

use self::directory::{Directory, Tag};
use super::Format::Tiff;
use super::{DecodeError, FileHeader, decode_with_image};
use crate::image::ImageSize;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let directory = Directory::first(bytes).ok_or_else(|| Tiff.corrupt("it has no directory, or an absurd one"))?;
    let side = |tag| directory.value(tag).and_then(|side| u32::try_from(side).ok());
    let (Some(width), Some(height)) = (side(Tag::ImageWidth), side(Tag::ImageLength)) else {
        return Err(Tiff.corrupt("it does not say its size"));
    };
    let size = ImageSize { width, height };
    let exif = directory.value(Tag::Orientation).and_then(|value| u8::try_from(value).ok());
    let bits = directory
        .value(Tag::BitsPerSample)
        .unwrap_or(1)
        .saturating_mul(directory.value(Tag::SamplesPerPixel).unwrap_or(1));
    let bytes_per_pixel = bits.div_ceil(8).saturating_mul(2).saturating_add(4);
    Ok(FileHeader {
        stored: size,
        orientation: exif.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
        decoding_bytes: size.pixels().saturating_mul(bytes_per_pixel).saturating_add(2 * bytes.len() as u64),
    })
}

pub(super) fn pixels(bytes: &[u8], decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    decode_with_image(bytes, Tiff, ImageFormat::Tiff, decoding_bytes)
}
