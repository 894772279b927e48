//! From the bytes of a file to RGB pixels.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

use super::ImageSize;

/// What a picture may cost before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels, by the file's header, before anything is decoded.
    pub max_pixels: u64,
}

/// Why bytes did not become a picture.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all (400).
    #[error("the image is empty: 0 bytes")]
    Empty,
    /// The content is none of the formats we read (415).
    #[error("the content is not an image in a format that is read here (JPEG, PNG, WebP, GIF, BMP or TIFF)")]
    UnknownFormat,
    /// A format we read, in a variant that we do not (415).
    #[error("this kind of {format} is not read here: {detail}")]
    Unsupported {
        /// Name of the format, e.g. `TIFF`.
        format: &'static str,
        /// Which feature is missing.
        detail: String,
    },
    /// The data are damaged or cut off (422).
    #[error("the {format} data are damaged or cut off: {detail}")]
    Corrupt {
        /// Name of the format, e.g. `JPEG`.
        format: &'static str,
        /// What the decoder tripped over.
        detail: String,
    },
    /// More pixels than the limit (413).
    #[error("the image has {} x {} pixels; at most {max_pixels} pixels are decoded here", size.width, size.height)]
    TooManyPixels {
        /// The size its header states.
        size: ImageSize,
        /// The limit.
        max_pixels: u64,
    },
    /// Its sides are within the limit, but decoding it would need too much memory (413).
    #[error("decoding this {format} needs more memory than its pixels justify")]
    TooMuchMemory {
        /// Name of the format.
        format: &'static str,
    },
}

/// Decodes the first frame of a JPEG, PNG, WebP, GIF, BMP or TIFF file, told by its content.
///
/// The header is read first, and the limit checked, before memory is taken for pixels. The EXIF orientation is
/// applied. Modes become RGB as Pillow's `convert("RGB")` does it: alpha is dropped, not composed over a colour; grey
/// is repeated; palettes are looked up; CMYK is multiplied out. Of 16 bits the upper 8 are kept; of floating-point
/// TIFF values 0 to 1 is the whole range.
///
/// # Errors
/// See [`DecodeError`]; each variant says which HTTP status it is meant to become.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let (format, name) = recognize(bytes).ok_or(DecodeError::UnknownFormat)?;
    // The decoders are fed whatever strangers send: should one of them panic, that is a damaged picture and not the
    // end of the thread that serves everybody. Nothing is shared with the closure, so nothing is left half-changed.
    catch_unwind(AssertUnwindSafe(|| decode_as(bytes, format, name, *limits)))
        .unwrap_or_else(|_| Err(DecodeError::Corrupt { format: name, detail: "the decoder gave up on it".to_owned() }))
}

/// The formats read here, by their first bytes.
fn recognize(bytes: &[u8]) -> Option<(ImageFormat, &'static str)> {
    let format = ::image::guess_format(bytes).ok()?;
    let name = match format {
        ImageFormat::Jpeg => "JPEG",
        ImageFormat::Png => "PNG",
        ImageFormat::WebP => "WebP",
        ImageFormat::Gif => "GIF",
        ImageFormat::Bmp => "BMP",
        ImageFormat::Tiff => "TIFF",
        _ => return None,
    };
    Some((format, name))
}

fn decode_as(
    bytes: &[u8],
    format: ImageFormat,
    name: &'static str,
    limits: DecodeLimits,
) -> Result<RgbImage, DecodeError> {
    let failed = |error| failure(name, error);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(allocation_limits(limits));
    let mut decoder = reader.into_decoder().map_err(failed)?;
    let (width, height) = decoder.dimensions();
    let size = ImageSize { width, height };
    if size.pixels() > limits.max_pixels {
        return Err(DecodeError::TooManyPixels { size, max_pixels: limits.max_pixels });
    }
    if size.pixels() == 0 {
        return Err(DecodeError::Corrupt { format: name, detail: format!("it is {width} x {height} pixels") });
    }
    // The JPEG decoder fills what is missing with grey and calls it a picture.
    if format == ImageFormat::Jpeg && !jpeg_reaches_its_end(bytes) {
        return Err(DecodeError::Corrupt { format: name, detail: "its end marker is missing".to_owned() });
    }
    // Damaged EXIF data do not make the pixels unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let pixels = rgb8_from(DynamicImage::from_decoder(decoder).map_err(failed)?);
    if orientation == Orientation::NoTransforms {
        return Ok(pixels);
    }
    let mut upright = DynamicImage::ImageRgb8(pixels);
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

/// What a decoder may allocate: the largest pixels there are (four floats), and room for tables and metadata.
fn allocation_limits(limits: DecodeLimits) -> Limits {
    const TABLES_BYTES: u64 = 32 << 20;
    let mut allocation = Limits::no_limits();
    allocation.max_alloc = Some(limits.max_pixels.saturating_mul(16).saturating_add(TABLES_BYTES));
    allocation
}

fn failure(format: &'static str, error: ImageError) -> DecodeError {
    match error {
        ImageError::Unsupported(error) => DecodeError::Unsupported { format, detail: error.to_string() },
        ImageError::Limits(_) => DecodeError::TooMuchMemory { format },
        error => DecodeError::Corrupt { format, detail: error.to_string() },
    }
}

/// See [`decode`] for what happens to each mode.
fn rgb8_from(picture: DynamicImage) -> RgbImage {
    let upper = |value: &u16| (value >> 8) as u8;
    let (width, height) = (picture.width(), picture.height());
    let bytes: Vec<u8> = match picture {
        DynamicImage::ImageRgb16(deep) => deep.as_raw().iter().map(upper).collect(),
        DynamicImage::ImageRgba16(deep) => {
            deep.as_raw().chunks_exact(4).flat_map(|pixel| pixel[..3].iter().map(upper)).collect()
        }
        DynamicImage::ImageLuma16(deep) => deep.as_raw().iter().flat_map(|grey| [upper(grey); 3]).collect(),
        DynamicImage::ImageLumaA16(deep) => {
            deep.as_raw().chunks_exact(2).flat_map(|pixel| [upper(&pixel[0]); 3]).collect()
        }
        shallow => return shallow.into_rgb8(),
    };
    RgbImage::from_raw(width, height, bytes).expect("three values were made of every pixel")
}

/// Whether the chain of JPEG segments arrives at the end-of-image marker.
fn jpeg_reaches_its_end(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xD9;
    let mut position = 0;
    // Between segments, and inside entropy-coded data, a marker is 0xFF followed by neither stuffing (0x00) nor
    // another fill byte. Segments with a length are stepped over: thumbnails inside have end markers of their own.
    while let Some(&[first, marker]) = bytes.get(position..position + 2) {
        match (first, marker) {
            (0xFF, END_OF_IMAGE) => return true,
            (0xFF, 0x01 | 0xD0..=0xD8) => position += 2,
            (0xFF, 0x02..=0xFE) => {
                let Some(&[high, low]) = bytes.get(position + 2..position + 4) else { return false };
                position += 2 + usize::from(u16::from_be_bytes([high, low]));
            }
            _ => position += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests;
