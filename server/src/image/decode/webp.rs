//! WebP: lossy, lossless, with alpha, and the first frame of an animation.

use ::image::metadata::Orientation;
use ::image::{ImageFormat, RgbImage};

use super::Format::WebP;
use super::fields::Fields;
use super::{DecodeError, FileHeader, decode_with_image};
use crate::image::ImageSize;

/// Where the first chunk begins: behind `RIFF`, a length and `WEBP`.
const FIRST_CHUNK: u64 = 12;
/// Type and length of a chunk.
const CHUNK_HEADER: u64 = 8;
/// Where an EXIF chunk is still looked for, behind the frames of an animation.
const MAX_CHUNKS: usize = 16_384;
/// Most bytes a pixel while decoding: RGBA of the result, of a frame and of the canvas beneath it, or colours and
/// indices of a lossless picture; then RGB.
const BYTES_PER_PIXEL: u64 = 16;
/// Huffman tables.
const WORKSPACE_BYTES: u64 = 4 << 20;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let size = size(fields).ok_or_else(|| WebP.corrupt("its header is cut off or is none"))?;
    let decoding_bytes = size.pixels() * BYTES_PER_PIXEL + 2 * bytes.len() as u64 + WORKSPACE_BYTES;
    Ok(FileHeader { stored: size, orientation: orientation(fields), decoding_bytes })
}

/// The size of the picture, or of the canvas where there is one.
fn size(fields: Fields<'_>) -> Option<ImageSize> {
    const SIDE: u32 = 0x3FFF;
    let data = FIRST_CHUNK + CHUNK_HEADER;
    let size = match fields.slice(FIRST_CHUNK, 4)? {
        b"VP8 " => {
            let side = |at| Some(u32::from(fields.u16(at)?) & SIDE);
            ImageSize { width: side(data + 6)?, height: side(data + 8)? }
        }
        b"VP8L" => {
            let sides = fields.u32(data + 1)?;
            ImageSize { width: (sides & SIDE) + 1, height: ((sides >> 14) & SIDE) + 1 }
        }
        b"VP8X" => {
            let side = |at| Some(u32::from(fields.u16(at)?) + (u32::from(fields.u8(at + 2)?) << 16) + 1);
            ImageSize { width: side(data + 4)?, height: side(data + 7)? }
        }
        _ => return None,
    };
    Some(size)
}

fn orientation(fields: Fields<'_>) -> Orientation {
    let mut position = FIRST_CHUNK;
    for _ in 0..MAX_CHUNKS {
        let (Some(kind), Some(length)) = (fields.slice(position, 4), fields.u32(position + 4)) else { break };
        if kind == b"EXIF" {
            let exif = fields.slice(position + CHUNK_HEADER, u64::from(length)).unwrap_or_default();
            // Some writers keep the prefix that EXIF data have in a JPEG.
            let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
            return Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms);
        }
        position += CHUNK_HEADER + u64::from(length).next_multiple_of(2);
    }
    Orientation::NoTransforms
}

pub(super) fn pixels(bytes: &[u8], decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    decode_with_image(bytes, WebP, ImageFormat::WebP, decoding_bytes)
}
