//! WebP: lossy, lossless, with alpha, and the first frame of an animation as it is, on its canvas.
//!
//! The first picture of the file is handed to the library as a file of its own, without its alpha channel where that is
//! apart: colours are wanted as they are stored, and the library would blend a frame of an animation with the canvas.

use std::borrow::Cow;

use ::image::{GenericImage, ImageFormat, RgbImage};

use super::Format::WebP;
use super::fields::Fields;
use super::orientation::{self, in_xmp};
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
/// Most bytes a pixel while decoding: RGBA, or colours and indices of a lossless picture; then RGB; then the canvas.
const BYTES_PER_PIXEL: u64 = 16;
/// Huffman tables.
const WORKSPACE_BYTES: u64 = 4 << 20;

/// Parts that a file declares.
mod flag {
    pub(super) const ANIMATION: u8 = 0x02;
    pub(super) const XMP: u8 = 0x04;
    pub(super) const EXIF: u8 = 0x08;
}

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let Container { canvas, flags } = Container::read(fields)?;
    let metadata = |kind: &[u8; 4], flag: u8| {
        let chunk =
            if flags & flag == 0 { None } else { chunks(fields, FIRST_CHUNK).find(|chunk| &chunk.kind == kind) }?;
        fields.slice(chunk.values_at, chunk.length)
    };
    let exif = metadata(b"EXIF", flag::EXIF).map(Cow::Borrowed);
    Ok(FileHeader {
        stored: canvas,
        orientation: orientation::stated(exif, || in_xmp(metadata(b"XMP ", flag::XMP)?)),
        decoding_bytes: canvas.pixels() * BYTES_PER_PIXEL + 3 * bytes.len() as u64 + WORKSPACE_BYTES,
    })
}

pub(super) fn pixels(bytes: &[u8], size: ImageSize, decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    let fields = Fields::little_endian(bytes);
    let container = Container::read(fields)?;
    let first = container.first_picture(fields)?;
    let picture = decode_with_image(&first.file(fields), WebP, ImageFormat::WebP, decoding_bytes)?;
    if ImageSize::from(picture.dimensions()) == size {
        return Ok(picture);
    }
    // What the frame does not cover is clear and black.
    let mut canvas = RgbImage::new(size.width, size.height);
    canvas.copy_from(&picture, first.x, first.y).map_err(|error| WebP.corrupt(error.to_string()))?;
    Ok(canvas)
}

/// Declarations of a file about itself.
struct Container {
    canvas: ImageSize,
    flags: u8,
}

impl Container {
    fn read(fields: Fields<'_>) -> Result<Self, DecodeError> {
        let first = chunk_at(fields, FIRST_CHUNK).ok_or_else(cut_off)?;
        if &first.kind != b"VP8X" {
            let canvas = size_of_bitstream(fields, first).ok_or_else(cut_off)?;
            return Ok(Self { canvas, flags: 0 });
        }
        let read = || {
            let flags = fields.u8(first.values_at)?;
            let canvas = size_in_24_bits(fields, first.values_at + 4)?;
            Some(Self { canvas, flags })
        };
        read().ok_or_else(cut_off)
    }

    /// Finds the first picture, and checks that it is inside the canvas: the library takes memory for all of it.
    fn first_picture(&self, fields: Fields<'_>) -> Result<FirstPicture, DecodeError> {
        let is_animated = self.flags & flag::ANIMATION != 0;
        let mut pictures = chunks(fields, FIRST_CHUNK)
            .filter(|chunk| if is_animated { &chunk.kind == b"ANMF" } else { chunk.is_bitstream() });
        let chunk = pictures.next().ok_or_else(|| WebP.corrupt("it has no picture"))?;
        let (bitstream, (x, y)) = if is_animated { bitstream_of_frame(fields, chunk)? } else { (chunk, (0, 0)) };
        fields.slice(bitstream.values_at, bitstream.length).ok_or_else(|| WebP.corrupt("its pixels are cut off"))?;
        let size = size_of_bitstream(fields, bitstream).ok_or_else(cut_off)?;
        let is_inside = x + size.width <= self.canvas.width && y + size.height <= self.canvas.height;
        if !is_inside || (!is_animated && size != self.canvas) {
            return Err(WebP.corrupt("its first picture is not of the size of its canvas"));
        }
        Ok(FirstPicture { bitstream, x, y })
    }
}

/// The first picture of a file, and its place on the canvas.
struct FirstPicture {
    /// The chunk that holds its pixels.
    bitstream: Chunk,
    x: u32,
    y: u32,
}

impl FirstPicture {
    /// The picture as a file.
    fn file(&self, fields: Fields<'_>) -> Vec<u8> {
        let pixels = fields.slice(self.bitstream.values_at, self.bitstream.length).unwrap_or_default();
        let padding: &[u8] = if pixels.len().is_multiple_of(2) { &[] } else { &[0] };
        let length = pixels.len() as u32;
        let riff_length = length.saturating_add(4 + CHUNK_HEADER as u32 + padding.len() as u32);
        let (riff_length, length) = (riff_length.to_le_bytes(), length.to_le_bytes());
        [b"RIFF", &riff_length[..], b"WEBP", &self.bitstream.kind, &length, pixels, padding].concat()
    }
}

/// The pixels of a frame of an animation, and its place on the canvas. Alpha may come before them.
fn bitstream_of_frame(fields: Fields<'_>, frame: Chunk) -> Result<(Chunk, (u32, u32)), DecodeError> {
    const MAX_CHUNKS_OF_FRAME: usize = 16;
    let inside = chunks(fields, frame.values_at + FRAME_HEADER).take(MAX_CHUNKS_OF_FRAME);
    let found = inside.take_while(|chunk| chunk.values_at < frame.end()).find(Chunk::is_bitstream);
    let bitstream = found.ok_or_else(|| WebP.corrupt("its first frame has no pixels"))?;
    let read = || {
        let half = |at: u64| Some(u32::from(fields.u16(at)?) | u32::from(fields.u8(at + 2)?) << 16);
        let place = (2 * half(frame.values_at)?, 2 * half(frame.values_at + 3)?);
        Some((place, size_in_24_bits(fields, frame.values_at + 6)?))
    };
    let (place, size) = read().ok_or_else(cut_off)?;
    if size_of_bitstream(fields, bitstream) != Some(size) {
        return Err(WebP.corrupt("its first frame is not of the size that it states"));
    }
    Ok((bitstream, place))
}

fn cut_off() -> DecodeError {
    WebP.corrupt("its header is cut off or invalid")
}

/// Two sides of 24 bits, each less one.
fn size_in_24_bits(fields: Fields<'_>, at: u64) -> Option<ImageSize> {
    let side = |at| Some(u32::from(fields.u16(at)?) + (u32::from(fields.u8(at + 2)?) << 16) + 1);
    Some(ImageSize { width: side(at)?, height: side(at + 3)? })
}

/// A chunk, which may reach beyond the file.
#[derive(Clone, Copy)]
struct Chunk {
    kind: [u8; 4],
    values_at: u64,
    length: u64,
}

impl Chunk {
    fn is_bitstream(&self) -> bool {
        matches!(&self.kind, b"VP8 " | b"VP8L")
    }

    /// Offset of what follows.
    const fn end(&self) -> u64 {
        self.values_at + self.length.next_multiple_of(2)
    }
}

fn chunk_at(fields: Fields<'_>, position: u64) -> Option<Chunk> {
    let kind = fields.slice(position, 4)?.try_into().ok()?;
    Some(Chunk { kind, values_at: position + CHUNK_HEADER, length: fields.u32(position + 4)?.into() })
}

/// The chunks from `position` on.
fn chunks(fields: Fields<'_>, position: u64) -> impl Iterator<Item = Chunk> {
    let next = move |chunk: &Chunk| chunk_at(fields, chunk.end());
    std::iter::successors(chunk_at(fields, position), next).take(MAX_CHUNKS)
}

/// The size in a chunk that holds pixels.
fn size_of_bitstream(fields: Fields<'_>, chunk: Chunk) -> Option<ImageSize> {
    const SIDE: u32 = 0x3FFF;
    let values = chunk.values_at;
    match &chunk.kind {
        b"VP8 " => {
            let side = |at| Some(u32::from(fields.u16(at)?) & SIDE);
            Some(ImageSize { width: side(values + 6)?, height: side(values + 8)? })
        }
        b"VP8L" => {
            let sides = fields.u32(values + 1)?;
            Some(ImageSize { width: (sides & SIDE) + 1, height: ((sides >> 14) & SIDE) + 1 })
        }
        _ => None,
    }
}
