//! PNG: every depth, colour type and interlacing. Of an APNG the default image is decoded.

use std::io::Cursor;

use ::image::RgbImage;
use ::image::metadata::Orientation;
use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::Format::Png;
use super::fields::Fields;
use super::{DecodeError, FileHeader};
use crate::image::ImageSize;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Offset of the header chunk's values: behind the signature, a length and a type.
const HEADER: u64 = 16;
/// Length, type and checksum of a chunk.
const CHUNK_OVERHEAD: u64 = 12;
/// Most chunks in which an EXIF chunk is searched. Encoders write a chunk for every 8 KiB or more of pixels.
const MAX_CHUNKS: usize = 16_384;
/// The window of the inflater, rows, tables.
const WORKSPACE_BYTES: u64 = 1 << 20;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::big_endian(bytes);
    let read = || {
        let size = ImageSize { width: fields.u32(HEADER)?, height: fields.u32(HEADER + 4)? };
        Some((fields.slice(HEADER - 4, 4)?, size, fields.u8(HEADER + 8)?, fields.u8(HEADER + 9)?))
    };
    let (kind, size, depth, color) = read().ok_or_else(|| Png.corrupt("its header is cut off"))?;
    if kind != b"IHDR" {
        return Err(Png.corrupt("it does not begin with its header"));
    }
    // Palettes and colour keys may bring an alpha channel; grey becomes RGB in a second buffer.
    let (channels, is_rgb) = match color {
        0 | 4 => (2, false),
        2 | 3 | 6 => (4, true),
        _ => return Err(Png.corrupt(format!("there is no colour type {color}"))),
    };
    if !matches!(depth, 1 | 2 | 4 | 8 | 16) {
        return Err(Png.corrupt(format!("there are no samples of {depth} bits")));
    }
    let rows = u64::from(size.width).saturating_mul(3 * 8);
    let bytes_per_pixel = if is_rgb { channels } else { channels + 3 };
    Ok(FileHeader {
        stored: size,
        orientation: orientation(fields),
        decoding_bytes: size.pixels().saturating_mul(bytes_per_pixel).saturating_add(rows + WORKSPACE_BYTES),
    })
}

/// The orientation in an EXIF chunk, which may come before or after the pixels.
fn orientation(fields: Fields<'_>) -> Orientation {
    let mut position = SIGNATURE.len() as u64;
    for _ in 0..MAX_CHUNKS {
        let (Some(length), Some(kind)) = (fields.u32(position), fields.slice(position + 4, 4)) else { break };
        if kind == b"eXIf" {
            let exif = fields.slice(position + 8, u64::from(length));
            return exif.and_then(Orientation::from_exif_chunk).unwrap_or(Orientation::NoTransforms);
        }
        position += CHUNK_OVERHEAD + u64::from(length);
    }
    Orientation::NoTransforms
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let row_bytes = u64::from(size.width) * 8;
    let limits = Limits { bytes: usize::try_from(row_bytes + WORKSPACE_BYTES).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Profiles and texts are not used, and may inflate to anything.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info().map_err(|error| failure(&error))?;
    let too_large = || DecodeError::TooMuchMemory { format: Png.name() };
    let mut samples = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
    let frame = reader.next_frame(&mut samples).map_err(|error| failure(&error))?;
    if (frame.width, frame.height, frame.bit_depth) != (size.width, size.height, BitDepth::Eight) {
        return Err(Png.corrupt("its first frame is not of the picture's size"));
    }
    let rgb = match frame.color_type {
        ColorType::Rgb => samples,
        ColorType::Rgba => without_alpha(samples),
        ColorType::Grayscale => samples.into_iter().flat_map(|grey| [grey; 3]).collect(),
        ColorType::GrayscaleAlpha => samples.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        ColorType::Indexed => return Err(Png.corrupt("its palette is missing")),
    };
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Png.corrupt("it has several sizes"))
}

/// `[H, W, 4]` to `[H, W, 3]`, in place.
pub(super) fn without_alpha(mut rgba: Vec<u8>) -> Vec<u8> {
    let pixels = rgba.len() / 4;
    for pixel in 1..pixels {
        rgba.copy_within(4 * pixel..4 * pixel + 3, 3 * pixel);
    }
    rgba.truncate(3 * pixels);
    rgba
}

fn failure(error: &DecodingError) -> DecodeError {
    match error {
        DecodingError::LimitsExceeded => DecodeError::TooMuchMemory { format: Png.name() },
        error => Png.corrupt(error.to_string()),
    }
}
