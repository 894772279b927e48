//! BMP: 1 to 32 bits, palettes, run lengths, bit masks, from bottom or top.

use ::image::metadata::Orientation;
use ::image::{ImageFormat, RgbImage};

use super::Format::Bmp;
use super::fields::Fields;
use super::{DecodeError, FileHeader, decode_with_image};
use crate::image::ImageSize;

/// Length of the file's own header; the picture's header follows.
const FILE_HEADER: u64 = 14;
/// A picture header of this length is OS/2's, with 16-bit sizes.
const CORE_HEADER_LENGTH: u32 = 12;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let read = || {
        let at = FILE_HEADER + 4;
        Some(match fields.u32(FILE_HEADER)? {
            CORE_HEADER_LENGTH => (fields.u16(at)?.into(), fields.u16(at + 2)?.into()),
            // A negative height means that the rows begin at the top.
            _ => (fields.u32(at)?, fields.u32(at + 4)?.cast_signed().unsigned_abs()),
        })
    };
    let (width, height) = read().ok_or_else(|| Bmp.corrupt("its header is cut off"))?;
    let size = ImageSize { width, height };
    // RGBA, and then RGB; rows.
    let decoding_bytes = size.pixels().saturating_mul(7).saturating_add(u64::from(width) * 8);
    Ok(FileHeader { stored: size, orientation: Orientation::NoTransforms, decoding_bytes })
}

pub(super) fn pixels(bytes: &[u8], decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    decode_with_image(bytes, Bmp, ImageFormat::Bmp, decoding_bytes)
}
