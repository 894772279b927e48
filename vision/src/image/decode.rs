//! From the bytes of a file to RGB pixels.

mod bmp;
mod directory;
mod fields;
mod foreign;
mod gif;
mod jpeg;
mod orientation;
mod palette;
pub(in crate::image) mod png;
mod tiff;
mod webp;

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageError, ImageFormat, ImageReader, Limits, RgbImage};

pub use self::foreign::{ForeignContent, ForeignKind};
use super::ImageSize;
use super::resize::{PixelRectangle, ResizeError, resize, resize_rectangle};

/// Limits beyond which a picture is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Most pixels, by the file's header, before anything is decoded.
    pub max_pixels: u64,
}

/// An error of [`probe`] and [`decode`].
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No bytes at all (400).
    #[error("the image is empty: 0 bytes")]
    Empty,
    /// The content is none of the formats we read (415).
    #[error("the content is {found}, not an image in a format that is read here (JPEG, PNG, WebP, GIF, BMP or TIFF)")]
    UnknownFormat {
        /// Content of the file.
        found: ForeignContent,
    },
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
        /// The decoder's message.
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

/// Size of a picture and memory that decoding it takes, from its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureHeader {
    /// Size of the upright picture.
    pub size: ImageSize,
    /// Most memory that [`decode`] takes for it at any moment, its result included.
    pub peak_bytes: u64,
}

/// Reads the header of a picture and what says its orientation. It takes microseconds, and at most some milliseconds
/// whatever the bytes are (metadata that are compressed, or that stand in very many pieces), and no memory that depends on
/// the size in the header. What it refuses [`decode`] refuses too, with the same error.
///
/// # Errors
/// See [`DecodeError`]. A valid header does not mean that the pixels can be decoded.
pub fn probe(bytes: &[u8], limits: &DecodeLimits) -> Result<PictureHeader, DecodeError> {
    let (_, header) = examine(bytes, *limits)?;
    Ok(PictureHeader { size: header.upright_size(), peak_bytes: header.peak_bytes() })
}

/// Returns whether bytes begin like a file of a format that is read here.
pub fn is_picture(bytes: &[u8]) -> bool {
    Format::detect(bytes).is_some()
}

/// Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF file. The format is detected by the first bytes.
///
/// The header is read first, and the limits checked, before memory is taken for pixels. Pixels are those that Pillow
/// gives after `exif_transpose` and `convert("RGB")`: equal, and nearly equal for JPEG.
///
/// | the file has | the result |
/// |---|---|
/// | an orientation in EXIF data, or else in XMP data (JPEG, PNG, WebP, TIFF) | turned and mirrored upright; damaged data are ignored |
/// | grey, 1 to 8 bits | scaled to 0 to 255, repeated |
/// | 5 or 6 bits a colour (BMP) | scaled and rounded |
/// | 12 or 16 bits without sign | the upper 8 |
/// | whole numbers of 32 bits, or with a sign (TIFF) | cut off at 0 and 255 |
/// | floating-point numbers (TIFF) | cut off at 0 and 255; if none is above 2, at 0 and 1, which is then the whole range |
/// | alpha, or a transparent colour | the colours beneath, as if opaque |
/// | associated alpha (TIFF) | the colours divided by it |
/// | a palette | its colours; an index that it lacks is black |
/// | CMYK, YCCK | ink multiplied out, without profiles; in a JPEG stored inverted, as Adobe does and all write |
/// | several frames or pages | the first; of a GIF or WebP on its canvas, the rest of which is the transparent colour or the first (GIF), or black |
/// | gamma, colour profiles | ignored |
/// | missing, damaged or other data behind the last pixel | ignored |
///
/// Differences from Pillow, and forms refused with [`DecodeError::Unsupported`], are listed in `docs/pictures.md`.
///
/// # Errors
/// See [`DecodeError`]; each variant says which HTTP status it is meant to become.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    let (format, header) = examine(bytes, *limits)?;
    catch_panic(format, || upright_pixels(format, bytes, &header))
}

/// A picture at the size that a network takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizedPicture {
    /// Size of the upright picture before.
    pub full_size: ImageSize,
    /// Upright and resized.
    pub pixels: RgbImage,
}

/// An error of [`decode_resized`].
#[derive(Debug, thiserror::Error)]
pub enum DecodeResizedError {
    /// The picture cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It cannot be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

/// Decodes a picture and resizes it to `size_for` its own size.
///
/// A large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, of which each side is at least 2.25 times the one wanted. The
/// result then differs from that of [`decode`] and [`resize`] by less than one level of 255 on average, for photographs,
/// and takes a quarter (1/8) to two thirds (1/2) of the time. Other formats are decoded whole: PNG and WebP have no coding
/// from which a smaller picture could be decoded faster.
///
/// # Errors
/// Those of [`decode`], and [`ResizeError::Empty`] if a side of that is 0.
pub fn decode_resized(
    bytes: &[u8],
    limits: &DecodeLimits,
    size_for: impl FnOnce(ImageSize) -> ImageSize,
) -> Result<ResizedPicture, DecodeResizedError> {
    let (format, header) = examine(bytes, *limits)?;
    let full_size = header.upright_size();
    let size = size_for(full_size);
    if let Some(reduction) = Reduction::down_to(full_size, size)
        && format == Format::Jpeg
        && let Some(reduced) = catch_panic(format, || Ok(jpeg::reduced::pixels(bytes, header.stored, reduction)))?
    {
        let stored_size = if header.is_turned() { turned(size) } else { size };
        let resized = resize_rectangle(&reduced, reduction.covered(header.stored), stored_size)?;
        return Ok(ResizedPicture { full_size, pixels: upright(resized, header.orientation) });
    }
    let picture = catch_panic(format, || upright_pixels(format, bytes, &header))?;
    Ok(ResizedPicture { full_size, pixels: resize(&picture, size)? })
}

/// A fraction of its size at which a picture is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reduction {
    Half,
    Quarter,
    Eighth,
}

impl Reduction {
    /// How many times each side is larger than wanted, at least, in quarters. At 2 the steps of the reduced picture show:
    /// of eleven sharp photographs the one that differs most from the whole one resized does so by 1.7 levels on average,
    /// at 2.25 by 0.9.
    const LEAST_RATIO_QUARTERS: u64 = 9;

    /// The smallest fraction of `full` whose sides are still at least 2.25 times those of `wanted`.
    fn down_to(full: ImageSize, wanted: ImageSize) -> Option<Self> {
        let suffices = |reduction: &Self| {
            let suffices = |full: u32, wanted: u32| {
                4 * u64::from(full)
                    >= Self::LEAST_RATIO_QUARTERS * u64::from(wanted) * u64::from(reduction.denominator())
            };
            suffices(full.width, wanted.width) && suffices(full.height, wanted.height)
        };
        [Self::Eighth, Self::Quarter, Self::Half].into_iter().find(suffices)
    }

    const fn denominator(self) -> u8 {
        match self {
            Self::Half => 2,
            Self::Quarter => 4,
            Self::Eighth => 8,
        }
    }

    /// Size of a reduced picture: pixels at the right and the bottom may be covered in part.
    fn of(self, full: ImageSize) -> ImageSize {
        let side = |length: u32| length.div_ceil(u32::from(self.denominator()));
        ImageSize { width: side(full.width), height: side(full.height) }
    }

    /// The part of a reduced picture that the full one covers.
    fn covered(self, full: ImageSize) -> PixelRectangle {
        let side = |length: u32| f64::from(length) / f64::from(self.denominator());
        PixelRectangle { left_px: 0.0, top_px: 0.0, width_px: side(full.width), height_px: side(full.height) }
    }
}

fn turned(ImageSize { width, height }: ImageSize) -> ImageSize {
    ImageSize { width: height, height: width }
}

/// [`decode`], but a panic of a decoder is not caught: for tests and fuzzing, which must see it.
///
/// # Errors
/// See [`decode`].
#[doc(hidden)]
pub fn decode_uncaught(bytes: &[u8], limits: &DecodeLimits) -> Result<RgbImage, DecodeError> {
    let (format, header) = examine(bytes, *limits)?;
    upright_pixels(format, bytes, &header)
}

/// Turns a panic of `decoder` into [`DecodeError::Corrupt`]: a decoder that fails on hostile bytes must not end the
/// thread that serves other requests. The closure shares nothing that a panic could leave half-changed.
fn catch_panic<T>(format: Format, decoder: impl FnOnce() -> Result<T, DecodeError>) -> Result<T, DecodeError> {
    catch_unwind(AssertUnwindSafe(decoder)).unwrap_or_else(|_| Err(format.corrupt("the decoder gave up on it")))
}

fn upright_pixels(format: Format, bytes: &[u8], header: &FileHeader) -> Result<RgbImage, DecodeError> {
    Ok(upright(format.pixels(bytes, header)?, header.orientation))
}

/// Properties of the picture as it is stored, from its header.
struct FileHeader {
    stored: ImageSize,
    orientation: Orientation,
    /// Most bytes that are held while decoding, the RGB result included; turning comes after.
    decoding_bytes: u64,
}

impl FileHeader {
    fn upright_size(&self) -> ImageSize {
        if self.is_turned() { turned(self.stored) } else { self.stored }
    }

    fn peak_bytes(&self) -> u64 {
        let copies = if self.is_turned() { 2 } else { 1 };
        self.decoding_bytes.max(self.stored.pixels().saturating_mul(3 * copies))
    }

    /// Returns whether rows become columns, which needs a second copy; the other orientations are applied in place.
    fn is_turned(&self) -> bool {
        use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
        matches!(self.orientation, Rotate90 | Rotate90FlipH | Rotate270 | Rotate270FlipH)
    }
}

fn examine(bytes: &[u8], limits: DecodeLimits) -> Result<(Format, FileHeader), DecodeError> {
    if bytes.is_empty() {
        return Err(DecodeError::Empty);
    }
    let unknown = || DecodeError::UnknownFormat { found: foreign::recognize(bytes) };
    let format = Format::detect(bytes).ok_or_else(unknown)?;
    let header = format.header(bytes)?;
    let size = header.stored;
    if size.pixels() > limits.max_pixels {
        return Err(DecodeError::TooManyPixels { size: header.upright_size(), max_pixels: limits.max_pixels });
    }
    if size.pixels() == 0 {
        return Err(format.corrupt(format!("it is {} x {} pixels", size.width, size.height)));
    }
    if header.peak_bytes() > limits.max_bytes(bytes.len()) {
        return Err(DecodeError::TooMuchMemory { format: format.name() });
    }
    Ok((format, header))
}

impl DecodeLimits {
    /// Most bytes that decoding may take: the largest pixels there are (four floats, and RGB beside them), tables, and
    /// what a decoder keeps of the file.
    const fn max_bytes(self, file_bytes: usize) -> u64 {
        const BYTES_PER_PIXEL: u64 = 20;
        const TABLES_BYTES: u64 = 32 << 20;
        self.max_pixels.saturating_mul(BYTES_PER_PIXEL).saturating_add(TABLES_BYTES + 4 * file_bytes as u64)
    }
}

/// The formats read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    WebP,
    Gif,
    Bmp,
    Tiff,
}

impl Format {
    /// The format of a file, by its first bytes.
    fn detect(bytes: &[u8]) -> Option<Self> {
        /// Formats that begin as one of ours does: JPEG-LS, and a camera's raw file as TIFF.
        const OTHERS: [&[u8]; 2] = [b"\xFF\xD8\xFF\xF7", b"II*\0\x10\0\0\0CR"];
        if OTHERS.iter().any(|other| bytes.starts_with(other)) {
            return None;
        }
        let is_webp = || bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP");
        Some(match bytes {
            [0xFF, 0xD8, 0xFF, ..] => Self::Jpeg,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'B', b'M', ..] => Self::Bmp,
            // 42 is TIFF, also with its bytes exchanged; 43 is BigTIFF.
            [b'I', b'I', 42 | 43, 0, ..]
            | [b'M', b'M', 0, 42 | 43, ..]
            | [b'I', b'I', 0, 42, ..]
            | [b'M', b'M', 42, 0, ..] => Self::Tiff,
            _ if bytes.starts_with(png::SIGNATURE) => Self::Png,
            _ if is_webp() => Self::WebP,
            _ => return None,
        })
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::WebP => "WebP",
            Self::Gif => "GIF",
            Self::Bmp => "BMP",
            Self::Tiff => "TIFF",
        }
    }

    fn header(self, bytes: &[u8]) -> Result<FileHeader, DecodeError> {
        match self {
            Self::Jpeg => jpeg::header(bytes),
            Self::Png => png::header(bytes),
            Self::WebP => webp::header(bytes),
            Self::Gif => gif::header(bytes),
            Self::Bmp => bmp::header(bytes),
            Self::Tiff => tiff::header(bytes),
        }
    }

    /// The picture as it is stored.
    fn pixels(self, bytes: &[u8], header: &FileHeader) -> Result<RgbImage, DecodeError> {
        match self {
            Self::Jpeg => jpeg::pixels(bytes, header.stored),
            Self::Png => png::pixels(bytes, header.stored),
            Self::WebP => webp::pixels(bytes, header.stored, header.decoding_bytes),
            Self::Gif => gif::pixels(bytes, header.stored),
            Self::Bmp => bmp::pixels(bytes, header.decoding_bytes),
            Self::Tiff => tiff::pixels(bytes),
        }
    }

    fn corrupt(self, detail: impl Into<String>) -> DecodeError {
        DecodeError::Corrupt { format: self.name(), detail: detail.into() }
    }

    fn unsupported(self, detail: impl Into<String>) -> DecodeError {
        DecodeError::Unsupported { format: self.name(), detail: detail.into() }
    }
}

/// Decodes with the `image` crate's own decoder of a format.
fn decode_with_image(
    bytes: &[u8],
    format: Format,
    image_format: ImageFormat,
    max_bytes: u64,
) -> Result<RgbImage, DecodeError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), image_format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(max_bytes);
    reader.limits(limits);
    let picture = reader.decode().map_err(|error| match error {
        ImageError::Unsupported(error) => format.unsupported(error.to_string()),
        ImageError::Limits(_) => DecodeError::TooMuchMemory { format: format.name() },
        error => format.corrupt(error.to_string()),
    })?;
    Ok(picture.into_rgb8())
}

fn upright(pixels: RgbImage, orientation: Orientation) -> RgbImage {
    if orientation == Orientation::NoTransforms {
        return pixels;
    }
    let mut picture = DynamicImage::ImageRgb8(pixels);
    picture.apply_orientation(orientation);
    picture.into_rgb8()
}

#[cfg(test)]
mod tests;
