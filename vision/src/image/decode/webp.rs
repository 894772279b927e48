//! WebP: lossy, lossless, with alpha, and the first frame of an animation.

use ::image::metadata::Orientation;
use ::image::{ImageFormat, RgbImage};

use super::Format::WebP;
use super::fields::Fields;
use super::{DecodeError, FileHeader, decode_with_image};
use crate::image::ImageSize;

/// Offset of the first chunk: behind `RIFF`, a length and `WEBP`.
const FIRST_CHUNK: u64 = 12;
/// Type and length of a chunk.
const CHUNK_HEADER: u64 = 8;
/// Length of the position, size and duration of an animation's frame, before its chunks.
const FRAME_HEADER: u64 = 16;
/// Most chunks. Each frame of an animation is one.
const MAX_CHUNKS: usize = 65_536;
/// Most bytes a pixel while decoding: RGBA of the result, of a frame and of the canvas beneath it, or colours and
/// indices of a lossless picture; then RGB.
const BYTES_PER_PIXEL: u64 = 16;
/// Huffman tables.
const WORKSPACE_BYTES: u64 = 4 << 20;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let size = size(fields).ok_or_else(|| WebP.corrupt("its header is cut off or invalid"))?;
    if chunks(fields).count() == MAX_CHUNKS {
        return Err(WebP.unsupported(format!("it has {MAX_CHUNKS} chunks or more")));
    }
    if !frames_fit(fields, size) {
        return Err(WebP.corrupt("a picture in it is larger than its canvas"));
    }
    let decoding_bytes = size.pixels() * BYTES_PER_PIXEL + 2 * bytes.len() as u64 + WORKSPACE_BYTES;
    Ok(FileHeader { stored: size, orientation: orientation(fields), decoding_bytes })
}

/// The size of the canvas, or of the picture of a file without one.
fn size(fields: Fields<'_>) -> Option<ImageSize> {
    if fields.slice(FIRST_CHUNK, 4)? != b"VP8X" {
        return size_of_bitstream(fields, FIRST_CHUNK);
    }
    let data = FIRST_CHUNK + CHUNK_HEADER;
    let side = |at| Some(u32::from(fields.u16(at)?) + (u32::from(fields.u8(at + 2)?) << 16) + 1);
    Some(ImageSize { width: side(data + 4)?, height: side(data + 7)? })
}

/// The size in the chunk at `position`, if it holds pixels.
fn size_of_bitstream(fields: Fields<'_>, position: u64) -> Option<ImageSize> {
    const SIDE: u32 = 0x3FFF;
    let data = position + CHUNK_HEADER;
    match fields.slice(position, 4)? {
        b"VP8 " => {
            let side = |at| Some(u32::from(fields.u16(at)?) & SIDE);
            Some(ImageSize { width: side(data + 6)?, height: side(data + 8)? })
        }
        b"VP8L" => {
            let sides = fields.u32(data + 1)?;
            Some(ImageSize { width: (sides & SIDE) + 1, height: ((sides >> 14) & SIDE) + 1 })
        }
        _ => None,
    }
}

/// Offset and stated length of each chunk.
fn chunks(fields: Fields<'_>) -> impl Iterator<Item = (u64, u64)> {
    let at = move |position: u64| Some((position, u64::from(fields.u32(position + 4)?)));
    let next = move |&(position, length): &(u64, u64)| at(after(position, length));
    std::iter::successors(at(FIRST_CHUNK), next).take(MAX_CHUNKS)
}

/// Offset of the chunk behind one.
const fn after(position: u64, length: u64) -> u64 {
    position + CHUNK_HEADER + length.next_multiple_of(2)
}

/// Returns whether no picture inside is larger than the canvas. The decoder takes memory for one before it compares.
fn frames_fit(fields: Fields<'_>, canvas: ImageSize) -> bool {
    let fits = |position: u64| {
        size_of_bitstream(fields, position)
            .is_none_or(|frame| frame.width <= canvas.width && frame.height <= canvas.height)
    };
    chunks(fields).all(|(position, _)| {
        if fields.slice(position, 4) != Some(b"ANMF") {
            return fits(position);
        }
        // A frame of an animation: position and duration, then an alpha chunk if it has one, then colours.
        let first = position + CHUNK_HEADER + FRAME_HEADER;
        let second = fields.u32(first + 4).map_or(first, |length| after(first, u64::from(length)));
        fits(first) && fits(second)
    })
}

fn orientation(fields: Fields<'_>) -> Orientation {
    let chunk = chunks(fields).find(|&(position, _)| fields.slice(position, 4) == Some(b"EXIF"));
    let exif = chunk.and_then(|(position, length)| fields.slice(position + CHUNK_HEADER, length)).unwrap_or_default();
    // Some writers keep the prefix that EXIF data have in a JPEG.
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

pub(super) fn pixels(bytes: &[u8], decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    decode_with_image(bytes, WebP, ImageFormat::WebP, decoding_bytes)
}
