//! GIF: the first frame, on a canvas that is as large as the screen and the frame together.
//!
//! The blocks before the frame are walked here, because the canvas grows where the frame reaches beyond the screen. The
//! library decodes what follows from them: screen, palette and frame.

use std::io::Read;

use ::image::RgbImage;
use ::image::metadata::Orientation;
use gif::{ColorOutput, DecodeOptions, DecodingError, MemoryLimit};

use super::Format::Gif;
use super::fields::Fields;
use super::palette::all_colors;
use super::{DecodeError, FileHeader};
use crate::image::ImageSize;

/// Tables of the decompressor and a buffer of the file.
const WORKSPACE_BYTES: u64 = 1 << 18;
/// Length of the screen's header, behind which a palette may follow.
const SCREEN_HEADER: u64 = 13;
/// Most blocks of data before the first frame. Those of XMP data and of profiles have up to 255 bytes.
const MAX_BLOCKS: usize = 1 << 18;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let Start { canvas, .. } = Start::read(bytes)?;
    Ok(FileHeader {
        stored: canvas,
        orientation: Orientation::NoTransforms,
        // The frame as indices, the canvas as RGB, and copies of metadata.
        decoding_bytes: canvas.pixels() * 4 + 2 * bytes.len() as u64 + WORKSPACE_BYTES,
    })
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize) -> Result<RgbImage, DecodeError> {
    let failed = |error: DecodingError| match error {
        DecodingError::MemoryLimit => DecodeError::TooMuchMemory { format: Gif.name() },
        error => Gif.corrupt(error.to_string()),
    };
    let start = Start::read(bytes)?;
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::Indexed);
    // There are no metadata between screen and frame.
    options.set_memory_limit(MemoryLimit::Unlimited);
    // The end of the data and of the file may be missing.
    let without_metadata = start.screen.chain(start.frame).chain(&b"\0;"[..]);
    let mut decoder = options.read_info(without_metadata).map_err(failed)?;
    let frame = decoder.next_frame_info().map_err(failed)?.ok_or_else(|| Gif.corrupt("it has no frame"))?;
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let (width, height) = (usize::from(frame.width), usize::from(frame.height));
    let (canvas_width, canvas_height) = (size.width as usize, size.height as usize);
    if width == 0 || height == 0 || left + width > canvas_width || top + height > canvas_height {
        return Err(Gif.corrupt("its first frame is empty"));
    }
    let mut indices = vec![0; width * height];
    decoder.read_into_buffer(&mut indices).map_err(failed)?;

    let colors = all_colors(decoder.palette().unwrap_or_default().as_chunks().0);
    // Canvas outside the frame is transparent, and transparency shows the colour it has in the palette.
    let mut rgb = colors[usize::from(start.transparent.unwrap_or(0))].repeat(canvas_width * canvas_height);
    for (y, row) in indices.chunks_exact(width).enumerate() {
        let start = 3 * ((top + y) * canvas_width + left);
        for (pixel, &index) in rgb[start..start + 3 * width].chunks_exact_mut(3).zip(row) {
            pixel.copy_from_slice(&colors[usize::from(index)]);
        }
    }
    RgbImage::from_raw(size.width, size.height, rgb).ok_or_else(|| Gif.corrupt("it has several sizes"))
}

/// A file up to its first frame.
struct Start<'a> {
    /// The screen's header and its palette.
    screen: &'a [u8],
    /// The first frame's descriptor and all that follows.
    frame: &'a [u8],
    canvas: ImageSize,
    /// The index that is transparent.
    transparent: Option<u8>,
}

impl<'a> Start<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let cut_off = || Gif.corrupt("its header is cut off");
        let fields = Fields::little_endian(bytes);
        let side = |at| fields.u16(at).map(u32::from).ok_or_else(cut_off);
        let (screen_width, screen_height) = (side(6)?, side(8)?);
        let flags = fields.u8(10).ok_or_else(cut_off)?;
        let palette_bytes = if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
        let screen = fields.slice(0, SCREEN_HEADER + palette_bytes).ok_or_else(cut_off)?;
        let (at, transparent) = first_frame(fields, screen.len() as u64)?;
        let end = |offset: u64, length: u64| Ok::<_, DecodeError>(side(at + offset)? + side(at + length)?);
        Ok(Self {
            screen,
            frame: bytes.get(at as usize..).unwrap_or_default(),
            canvas: ImageSize { width: screen_width.max(end(1, 5)?), height: screen_height.max(end(3, 7)?) },
            transparent,
        })
    }
}

/// Position of the first frame's descriptor, and the index that is transparent in it.
fn first_frame(fields: Fields<'_>, mut position: u64) -> Result<(u64, Option<u8>), DecodeError> {
    const EXTENSION: u8 = b'!';
    const FRAME: u8 = b',';
    const END: u8 = b';';
    const GRAPHIC_CONTROL: u8 = 0xF9;
    let mut transparent = None;
    let mut is_in_extension = false;
    for _ in 0..MAX_BLOCKS {
        match (is_in_extension, fields.u8(position)) {
            (false, Some(FRAME)) => return Ok((position, transparent)),
            (false, Some(EXTENSION)) => {
                let (kind, length, flags) = (fields.u8(position + 1), fields.u8(position + 2), fields.u8(position + 3));
                if kind == Some(GRAPHIC_CONTROL) && length >= Some(4) && flags.is_some_and(|flags| flags & 1 == 1) {
                    transparent = fields.u8(position + 6);
                }
                is_in_extension = true;
                position += 2;
            }
            (_, None) | (false, Some(END)) => return Err(Gif.corrupt("it has no frame")),
            // A stray byte.
            (false, Some(_)) => position += 1,
            // An empty block ends the extension.
            (true, Some(length)) => {
                is_in_extension = length > 0;
                position += 1 + u64::from(length);
            }
        }
    }
    Err(Gif.corrupt("too much comes before its first frame"))
}
