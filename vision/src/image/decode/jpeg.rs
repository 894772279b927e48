//! JPEG: baseline and progressive, 8 bits; grey, YCbCr, RGB, CMYK and YCCK.
//!
//! The decoder was chosen by measurement, on photographs of 640 x 480 pixels, quality 90, 4:2:0, one thread: zune-jpeg
//! takes 1.8 ms a picture, jpeg-decoder 2.1 ms, `OpenCV`'s libjpeg-turbo 1.4 ms. It builds without cmake and nasm, and
//! its pixels are within 3 levels of libjpeg-turbo's, 0.4 on average at most, whatever the subsampling.
//!
//! As every viewer does it shows what it can of damaged entropy-coded data. A file without its end marker is read if its
//! data hold the whole picture, and refused if they do not. Refused is also one with thousands of segments or 64 KiB of
//! bytes outside of any before its pixels begin, as no encoder writes it: reading the header takes microseconds, whatever
//! the bytes are.

mod color_coding;
mod coverage;
mod frame;
mod huffman;
pub(super) mod reduced;
mod segments;
mod standard_tables;

use std::borrow::Cow;

use ::image::RgbImage;
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::color_coding::ColorMarkers;
use self::frame::{FrameHeader, is_frame_header};
use self::huffman::{HuffmanTables, TableClass};
use self::segments::Segments;
use super::Format::Jpeg;
use super::orientation::{self, EXIF_PREFIX, in_xmp};
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

/// Most segments with EXIF data, which continue one another.
const MAX_EXIF_SEGMENTS: usize = 64;

/// Begins a segment with an XMP packet.
const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

mod marker {
    pub(super) const HUFFMAN_TABLES: u8 = 0xC4;
    pub(super) const ARITHMETIC_CONDITIONING: u8 = 0xCC;
    pub(super) const START_OF_IMAGE: u8 = 0xD8;
    pub(super) const END_OF_IMAGE: u8 = 0xD9;
    pub(super) const START_OF_SCAN: u8 = 0xDA;
    pub(super) const NUMBER_OF_LINES: u8 = 0xDC;
    pub(super) const RESTART_INTERVAL: u8 = 0xDD;
    pub(super) const APP0: u8 = 0xE0;
    pub(super) const APP1: u8 = 0xE1;
    pub(super) const APP14: u8 = 0xEE;
}

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let mut frame = None;
    let mut metadata = Metadata::default();
    let mut segments = Segments::with_limit(bytes, MAX_SKIPPED_BYTES);
    for (marker, payload) in segments.by_ref().take(MAX_SEGMENTS) {
        match marker {
            marker::APP1 => metadata.add(payload),
            marker::START_OF_SCAN => {
                let frame: FrameHeader = frame.ok_or_else(|| Jpeg.corrupt("its scans come before its frame header"))?;
                let components_of_scan = payload.first().copied().unwrap_or_default();
                return Ok(FileHeader {
                    stored: frame.size,
                    orientation: metadata.orientation(),
                    // The decoder keeps copies of metadata, in buffers that grow as they fill; what is completed before
                    // it is decoded is a copy as well.
                    decoding_bytes: frame.decoding_bytes(components_of_scan) + 4 * bytes.len() as u64,
                });
            }
            _ if is_frame_header(marker) => frame = Some(FrameHeader::from_segment(marker, payload)?),
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

/// EXIF and XMP data before the pixels.
#[derive(Default)]
struct Metadata<'a> {
    /// Segments that continue one another.
    exif: Vec<&'a [u8]>,
    xmp: Option<&'a [u8]>,
}

impl<'a> Metadata<'a> {
    fn add(&mut self, payload: &'a [u8]) {
        if let Some(continued) = payload.strip_prefix(EXIF_PREFIX) {
            if self.exif.len() < MAX_EXIF_SEGMENTS {
                self.exif.push(continued);
            }
        } else if let Some(packet) = payload.strip_prefix(XMP_PREFIX) {
            self.xmp = Some(packet);
        }
    }

    fn orientation(&self) -> ::image::metadata::Orientation {
        let exif = match self.exif.as_slice() {
            [] => None,
            [whole] => Some(Cow::Borrowed(*whole)),
            parts => Some(Cow::Owned(parts.concat())),
        };
        orientation::stated(exif, || in_xmp(self.xmp?))
    }
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let rgb = samples(bytes, Some(ColorSpace::RGB))?;
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Jpeg.corrupt("it has several sizes"))
}

/// The samples `[H, W, C]` in `color_space`, or as they are stored.
pub(super) fn samples(bytes: &[u8], color_space: Option<ColorSpace>) -> Result<Vec<u8>, DecodeError> {
    let file = completed(bytes)?;
    let failed = |error| match error {
        DecodeErrors::Unsupported(scheme) => Jpeg.unsupported(format!("{scheme:?}")),
        error => Jpeg.corrupt(error.to_string()),
    };
    let options = decoder_options(color_space.unwrap_or(ColorSpace::RGB));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file.as_ref()), options);
    if color_space.is_none() {
        decoder.decode_headers().map_err(failed)?;
        let stored = decoder.input_colorspace().unwrap_or(ColorSpace::RGB);
        decoder.set_options(options.jpeg_set_out_colorspace(stored));
    }
    decoder.decode().map_err(failed)
}

fn decoder_options(color_space: ColorSpace) -> DecoderOptions {
    DecoderOptions::default()
        .jpeg_set_out_colorspace(color_space)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        // Stray bytes between segments are common and harmless.
        .set_strict_mode(false)
}

/// Returns whether a file needs no completion, its colours are neither ink nor coded as only some decoders expect, none of
/// them has less than half the resolution of another, and its header is one that [`samples`] takes, so that every decoder
/// reads the same from it.
fn is_plain(bytes: &[u8]) -> bool {
    let Ok(Outline { has_end, needs_tables, has_rare_segments, colors, frame: Some(frame) }) = outline(bytes) else {
        return false;
    };
    let is_coarse = || frame.components.iter().any(|component| component.horizontal.max(component.vertical) > 2);
    has_end
        && !needs_tables
        && !has_rare_segments
        && frame.components.len() <= 3
        && !is_coarse()
        && colors.changes().is_empty()
        && JpegDecoder::new_with_options(ZCursor::new(bytes), decoder_options(ColorSpace::RGB)).decode_headers().is_ok()
}

/// The file as the decoder needs it: with its end marker, without what stands in its place, with Huffman tables, and with
/// the markers from which it tells how colours are coded.
///
/// Checks that the picture is whole and its scans are few. The decoder checks neither: it fills missing data with grey
/// and takes any number of scans.
fn completed(bytes: &[u8]) -> Result<Cow<'_, [u8]>, DecodeError> {
    const END: [u8; 2] = [0xFF, marker::END_OF_IMAGE];
    let Outline { has_end, needs_tables, colors, .. } = outline(bytes)?;
    let missing = || Jpeg.corrupt("its pixels end early, and its end marker is missing");
    let whole = if has_end { bytes } else { &bytes[..coverage::end_of_whole_picture(bytes).ok_or_else(missing)?] };
    let changes = colors.changes();
    let mut whole = Cow::Borrowed(whole);
    for (place, value) in &changes {
        if let Some(byte) = whole.to_mut().get_mut(*place) {
            *byte = *value;
        }
    }
    if has_end && !needs_tables {
        return Ok(whole);
    }
    let (start, rest) = whole.split_at_checked(2).ok_or_else(missing)?;
    let tables = if needs_tables { standard_tables::segments() } else { Vec::new() };
    let end: &[u8] = if has_end { &[] } else { &END };
    Ok(Cow::Owned([start, &tables, rest, end].concat()))
}

/// Parts that a file has.
struct Outline {
    has_end: bool,
    /// A scan uses a table that was not defined before.
    needs_tables: bool,
    colors: ColorMarkers,
    /// There is a segment that belongs to arithmetic coding, or gives the height behind the first scan.
    has_rare_segments: bool,
    /// The last frame header that can be read.
    frame: Option<FrameHeader>,
}

fn outline(bytes: &[u8]) -> Result<Outline, DecodeError> {
    let mut outline = Outline {
        has_end: false,
        needs_tables: false,
        has_rare_segments: false,
        colors: ColorMarkers::default(),
        frame: None,
    };
    let mut tables = HuffmanTables::default();
    let mut is_progressive = false;
    let mut scans = 0;
    let mut segments = Segments::new(bytes);
    while let Some((marker, payload)) = segments.next() {
        let at = segments.end() - payload.len();
        match marker {
            marker::END_OF_IMAGE => outline.has_end = true,
            marker::NUMBER_OF_LINES | marker::ARITHMETIC_CONDITIONING => outline.has_rare_segments = true,
            marker::APP0 => outline.colors.add_app0(payload),
            marker::APP14 => outline.colors.add_app14(payload, at),
            // What is malformed is the decoder's to refuse.
            marker::HUFFMAN_TABLES => {
                tables.define(payload);
            }
            marker::START_OF_SCAN => {
                scans += 1;
                outline.colors.add_scan(payload, at);
                outline.needs_tables |= !has_tables(payload, &tables, is_progressive);
            }
            _ if is_frame_header(marker) => {
                is_progressive = marker == 0xC2;
                if let Ok(frame) = FrameHeader::from_segment(marker, payload) {
                    outline.frame = Some(frame.clone());
                    outline.colors.set_frame(frame, at);
                }
            }
            _ => {}
        }
        if scans > MAX_SCANS {
            return Err(Jpeg.unsupported(format!("it has more than {MAX_SCANS} scans")));
        }
    }
    Ok(outline)
}

/// Returns whether the tables are defined that a scan uses.
fn has_tables(scan: &[u8], tables: &HuffmanTables, is_progressive: bool) -> bool {
    let Some((&count, rest)) = scan.split_first() else { return true };
    let Some((selectors, rest)) = rest.split_at_checked(2 * usize::from(count)) else { return true };
    let (uses_dc, uses_ac) = match *rest {
        // A refinement of means is sent as bits.
        [first, _, bits, ..] if is_progressive => (first == 0 && bits >> 4 == 0, first > 0),
        _ => (true, true),
    };
    selectors.chunks_exact(2).all(|selector| {
        (!uses_dc || tables.is_defined(TableClass::Dc, selector[1] >> 4))
            && (!uses_ac || tables.is_defined(TableClass::Ac, selector[1] & 15))
    })
}
