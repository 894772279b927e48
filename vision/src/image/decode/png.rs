//! PNG: every depth, colour type and interlacing. Of an APNG the default image is decoded.
//!
//! A file is read up to its last pixel: what follows may be missing, cut off or wrong, and so may be the checksums of the
//! pixels. Those of header and palette are checked.

mod chunks;
mod metadata;

use std::io::Cursor;

use ::image::RgbImage;
use png::{ColorType, Decoder, DecodingError, InterlaceInfo, Limits, Reader, Transformations};

use self::chunks::chunks;
use super::Format::Png;
use super::fields::Fields;
use super::{DecodeError, FileHeader};
use crate::image::ImageSize;

pub(in crate::image) use self::chunks::SIGNATURE;

/// Offset of the header chunk's values: behind the signature, a length and a type.
const HEADER: u64 = 16;
/// The window of the inflater, rows, tables; or before them EXIF data that were text, half as long as that may be.
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
    let rows = u64::from(size.width).saturating_mul(4 * 8);
    let bytes_per_pixel = if is_rgb { channels } else { channels + 3 };
    let decoding_bytes = size.pixels().saturating_mul(bytes_per_pixel).saturating_add(rows + WORKSPACE_BYTES);
    Ok(FileHeader { stored: size, orientation: metadata::orientation(bytes), decoding_bytes })
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let row_bytes = u64::from(size.width) * 8;
    let limits = Limits { bytes: usize::try_from(row_bytes + WORKSPACE_BYTES).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let FirstFrame { reader, samples, .. } = FirstFrame::read(decoder, bytes, size)?;
    let rgb = match reader.output_color_type() {
        (ColorType::Rgb, _) => samples,
        (ColorType::Rgba, _) => without_alpha(samples),
        (ColorType::Grayscale, _) => samples.into_iter().flat_map(|grey| [grey; 3]).collect(),
        (ColorType::GrayscaleAlpha, _) => samples.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        (ColorType::Indexed, _) => return Err(Png.corrupt("its palette is missing")),
    };
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Png.corrupt("it has several sizes"))
}

/// The first frame of a file, as the transformations of its decoder make it.
pub(in crate::image) struct FirstFrame<'a> {
    pub(in crate::image) reader: Reader<Cursor<&'a [u8]>>,
    /// Its rows, one after the other, each beginning on a byte.
    pub(in crate::image) samples: Vec<u8>,
    pub(in crate::image) row_bytes: usize,
}

impl<'a> FirstFrame<'a> {
    /// Reads the frame with `decoder`, up to the last row of a picture of `size`.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if the frame is not of this size, header or palette have a wrong checksum, or the data
    /// end before the last row does.
    pub(in crate::image) fn read(
        mut decoder: Decoder<Cursor<&'a [u8]>>,
        bytes: &'a [u8],
        size: ImageSize,
    ) -> Result<Self, DecodeError> {
        // What damages header or palette changes every pixel.
        let before_pixels = chunks(bytes).take_while(|chunk| &chunk.kind != b"IDAT");
        let mut checked = before_pixels.filter(|chunk| matches!(&chunk.kind, b"IHDR" | b"PLTE"));
        if !checked.all(|chunk| chunk.has_valid_checksum()) {
            return Err(Png.corrupt("its header or palette has a wrong checksum"));
        }
        // Profiles and texts are not used, and may inflate to anything.
        decoder.set_ignore_text_chunk(true);
        decoder.set_ignore_iccp_chunk(true);
        decoder.ignore_checksums(true);
        let mut reader = decoder.read_info().map_err(|error| failure(&error))?;
        let frame = reader.info().frame_control.as_ref();
        if frame.is_some_and(|frame| (frame.width, frame.height) != (size.width, size.height)) {
            return Err(Png.corrupt("its first frame is not of the picture's size"));
        }
        let too_large = || DecodeError::TooMuchMemory { format: Png.name() };
        let row_bytes = reader.output_line_size(size.width).ok_or_else(too_large)?;
        let mut samples = vec![0; reader.output_buffer_size().ok_or_else(too_large)?];
        read_rows(&mut reader, size, row_bytes, &mut samples).map_err(|error| failure(&error))?;
        Ok(Self { reader, samples, row_bytes })
    }
}

/// Reads all rows of a frame and nothing behind the last one.
fn read_rows(
    reader: &mut Reader<Cursor<&[u8]>>,
    size: ImageSize,
    row_bytes: usize,
    samples: &mut [u8],
) -> Result<(), DecodingError> {
    if !reader.info().interlaced {
        return samples.chunks_exact_mut(row_bytes).try_for_each(|row| reader.read_row(row).map(|_| ()));
    }
    let (color, depth) = reader.output_color_type();
    let bits_per_pixel = color.samples() as u8 * depth as u8;
    for _ in 0..rows_of_passes(size) {
        let Some(row) = reader.next_interlaced_row()? else { break };
        if let InterlaceInfo::Adam7(place) = row.interlace() {
            png::expand_interlaced_row(samples, row_bytes, row.data(), place, bits_per_pixel);
        }
    }
    Ok(())
}

/// Rows of the seven passes of an interlaced picture; those without columns have none.
fn rows_of_passes(size: ImageSize) -> u64 {
    // The first column and row of each pass, and the distance to the next.
    const PASSES: [(u32, u32, u32, u32); 7] =
        [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)];
    let count = |side: u32, first: u32, distance: u32| u64::from(side.saturating_sub(first).div_ceil(distance));
    let rows = PASSES
        .map(|(x, across, y, down)| if count(size.width, x, across) > 0 { count(size.height, y, down) } else { 0 });
    rows.iter().sum()
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
