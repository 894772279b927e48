//! JPEG: baseline and progressive, 8 bits; grey, YCbCr, RGB, CMYK and YCCK.
//!
//! The decoder was chosen by measurement, on photographs of 640 x 480 pixels, quality 90, 4:2:0, one thread: zune-jpeg
//! takes 1.8 ms a picture, jpeg-decoder 2.1 ms, `OpenCV`'s libjpeg-turbo 1.4 ms. It builds without cmake and nasm, and
//! its pixels are within 3 levels of libjpeg-turbo's, 0.4 on average at most, whatever the subsampling.
//!
//! As every viewer does it shows what it can of damaged entropy-coded data. A file without its end is refused, and so is
//! one with thousands of segments or 64 KiB of bytes outside of any before its pixels begin, as no encoder writes it:
//! reading the header takes microseconds, whatever the bytes are.

mod segments;

use ::image::RgbImage;
use ::image::metadata::Orientation;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::segments::Segments;
use super::Format::Jpeg;
use super::fields::Fields;
use super::{DecodeError, FileHeader};
use crate::image::ImageSize;

/// Most scans of a progressive file. Encoders write about ten; each costs a pass over all coefficients, so a file of
/// some kilobytes with thousands of them would keep a core busy for minutes.
const MAX_SCANS: usize = 64;

/// Most bytes outside of segments (fill bytes, stray bytes, markers that stand alone) before the first scan. Encoders
/// write none, or a few for alignment.
const MAX_SKIPPED_BYTES: usize = 64 << 10;

/// Most segments before the first scan. Metadata of 32 MiB are about 500 of them.
const MAX_SEGMENTS: usize = 4096;

mod marker {
    pub(super) const START_OF_IMAGE: u8 = 0xD8;
    pub(super) const END_OF_IMAGE: u8 = 0xD9;
    pub(super) const START_OF_SCAN: u8 = 0xDA;
    pub(super) const APP1: u8 = 0xE1;
}

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let mut frame = None;
    let mut orientation = None;
    let mut segments = Segments::with_limit(bytes, MAX_SKIPPED_BYTES);
    for (marker, payload) in segments.by_ref().take(MAX_SEGMENTS) {
        match marker {
            // All start-of-frame markers, whatever the process: 0xC4, 0xC8 and 0xCC are other things.
            0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => {
                frame = Some(FrameHeader::from_segment(marker, payload)?);
            }
            marker::APP1 if orientation.is_none() => {
                orientation = payload.strip_prefix(b"Exif\0\0").map(Orientation::from_exif_chunk);
            }
            marker::START_OF_SCAN => {
                let frame = frame.ok_or_else(|| Jpeg.corrupt("its scans come before its frame header"))?;
                let components_of_scan = payload.first().copied().unwrap_or_default();
                return Ok(FileHeader {
                    stored: frame.size,
                    orientation: orientation.flatten().unwrap_or(Orientation::NoTransforms),
                    // The decoder keeps copies of metadata, in buffers that grow as they fill.
                    decoding_bytes: frame.decoding_bytes(components_of_scan) + 2 * bytes.len() as u64,
                });
            }
            _ => {}
        }
    }
    let reason = if segments.limit_was_exceeded() {
        "more than 64 KiB before its pixels belong to no segment"
    } else if segments.next().is_some() {
        "it has more than 4096 segments before its pixels"
    } else {
        "it ends before its pixels begin"
    };
    Err(Jpeg.corrupt(reason))
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let rgb = samples(bytes, Some(ColorSpace::RGB))?;
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Jpeg.corrupt("it has several sizes"))
}

/// The samples `[H, W, C]` in `color_space`, or as they are stored.
pub(super) fn samples(bytes: &[u8], color_space: Option<ColorSpace>) -> Result<Vec<u8>, DecodeError> {
    check_scans(bytes)?;
    let failed = |error| match error {
        DecodeErrors::Unsupported(scheme) => Jpeg.unsupported(format!("{scheme:?}")),
        error => Jpeg.corrupt(error.to_string()),
    };
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(color_space.unwrap_or(ColorSpace::RGB))
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        // Stray bytes between segments are common and harmless.
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    if color_space.is_none() {
        decoder.decode_headers().map_err(failed)?;
        let stored = decoder.input_colorspace().unwrap_or(ColorSpace::RGB);
        decoder.set_options(options.jpeg_set_out_colorspace(stored));
    }
    decoder.decode().map_err(failed)
}

/// Checks that the end marker is there and that scans are few. The decoder checks neither: it fills missing data with
/// grey and takes any number of scans.
fn check_scans(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut scans = 0;
    for (marker, _) in Segments::new(bytes) {
        match marker {
            marker::END_OF_IMAGE => return Ok(()),
            marker::START_OF_SCAN => scans += 1,
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(Jpeg.unsupported(format!("it has more than {MAX_SCANS} scans")));
        }
    }
    Err(Jpeg.corrupt("its end marker is missing"))
}

/// A frame header.
struct FrameHeader {
    size: ImageSize,
    progressive: bool,
    /// Horizontal and vertical sampling factors, one pair a component.
    sampling: Vec<(u8, u8)>,
}

impl FrameHeader {
    fn from_segment(marker: u8, payload: &[u8]) -> Result<Self, DecodeError> {
        let process = match marker {
            0xC0..=0xC2 => None,
            0xC3 => Some("lossless coding"),
            0xC9..=0xCB => Some("arithmetic coding"),
            _ => Some("hierarchical coding"),
        };
        if let Some(process) = process {
            return Err(Jpeg.unsupported(process));
        }
        let cut_off = || Jpeg.corrupt("its frame header is cut off");
        let fields = Fields::big_endian(payload);
        let precision = fields.u8(0).ok_or_else(cut_off)?;
        if precision != 8 {
            return Err(Jpeg.unsupported(format!("{precision} bits a sample")));
        }
        let height = u32::from(fields.u16(1).ok_or_else(cut_off)?);
        let width = u32::from(fields.u16(3).ok_or_else(cut_off)?);
        let components = fields.u8(5).ok_or_else(cut_off)?;
        if !matches!(components, 1 | 3 | 4) {
            return Err(Jpeg.unsupported(format!("{components} components")));
        }
        let sampling = (0..u64::from(components)).map(|index| {
            let factors = fields.u8(7 + 3 * index).ok_or_else(cut_off)?;
            match (factors >> 4, factors & 15) {
                (horizontal @ 1..=4, vertical @ 1..=4) => Ok((horizontal, vertical)),
                _ => Err(Jpeg.corrupt("its sampling factors are not 1 to 4")),
            }
        });
        Ok(Self {
            size: ImageSize { width, height },
            progressive: marker == 0xC2,
            sampling: sampling.collect::<Result<_, _>>()?,
        })
    }

    /// Most bytes while it is decoded: the RGB pixels; the coefficients of the whole picture, where its components or
    /// bits come one after the other, else of one row of blocks; and that row again, upsampled.
    fn decoding_bytes(&self, components_of_scan: u8) -> u64 {
        const BYTES_PER_COEFFICIENT: u64 = 2;
        let most = |factor: fn(&(u8, u8)) -> u8| u64::from(self.sampling.iter().map(factor).max().unwrap_or(1));
        let (horizontal, vertical) = (most(|factors| factors.0), most(|factors| factors.1));
        let blocks: u64 = self.sampling.iter().map(|&(h, v)| u64::from(h) * u64::from(v)).sum();
        let units_across = u64::from(self.size.width).div_ceil(8 * horizontal);
        let units_down = u64::from(self.size.height).div_ceil(8 * vertical);
        let row = units_across * blocks * 64 * BYTES_PER_COEFFICIENT;
        let upsampled = units_across * horizontal * vertical * 64 * self.sampling.len() as u64 * BYTES_PER_COEFFICIENT;
        let in_one_scan = !self.progressive && usize::from(components_of_scan) == self.sampling.len();
        let coefficients = if in_one_scan { row } else { row * units_down };
        self.size.pixels() * 3 + coefficients + row + 2 * upsampled
    }
}
