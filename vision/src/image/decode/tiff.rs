//! TIFF and `BigTIFF`: the first page, in strips or tiles, samples side by side or in planes.
//!
//! Libraries decompress (LZW, deflate, JPEG, fax); the directory, strips and samples are read here. No offset, count or
//! size in a file decides on memory or time: a chunk is a slice of the file, and the size of the picture bounds the
//! length of its rows.
//!
//! The `tiff` crate (0.11.3) does not replace this, because it
//! - refuses pictures with a palette, and colours of less than 8 bits a sample;
//! - refuses a missing photometric interpretation, and `WhiteIsZero` with more than one sample a pixel;
//! - decodes a JPEG inside a strip before it compares sizes: a strip of a few bytes may take 800 MB, and any number of
//!   scans any time;
//! - hands the rest of the file, not the chunk, to deflate, and does not bound how often chunks overlap;
//! - reads all offsets and lengths into memory when it opens a file, which a probe must not;
//! - checks by assertions, which panic, where the tags of a directory contradict each other;
//! - refuses files without the lengths of strips, and the other order of bits;
//! - leaves the conversion of YCbCr, CMYK, floating-point and 16-bit samples to the caller, which is most of what is here.

mod chunk_places;
mod compression;
mod names;
mod sample_layout;
mod samples;

use ::image::RgbImage;
use ::image::metadata::Orientation;

use self::chunk_places::ChunkPlaces;
use self::sample_layout::{Photometric, SampleDepth, SampleLayout, TiffChunk};
use self::samples::FloatRange;
use super::Format::Tiff;
use super::directory::{Directory, Tag};
use super::orientation::in_xmp;
use super::png::without_alpha;
use super::{DecodeError, FileHeader};

/// Tables of the decompressors, and rows of samples.
const WORKSPACE_BYTES: u64 = 1 << 18;

/// Largest floating-point number of a picture whose range is 0 to 1: filters overshoot.
const MAX_OF_UNIT_RANGE: f32 = 2.0;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let directory = directory(bytes)?;
    let layout = SampleLayout::from_directory(&directory)?;
    let xmp = || in_xmp(directory.values(Tag::Xmp)?.bytes()?);
    let channels = layout.canvas_channels() as u64;
    // Grey and palettes become RGB in a second buffer, the others where they are.
    let bytes_per_pixel = if layout.photometric.channels() == 1 { channels + 3 } else { channels };
    Ok(FileHeader {
        stored: layout.size,
        orientation: directory.orientation().or_else(xmp).unwrap_or(Orientation::NoTransforms),
        decoding_bytes: layout
            .size
            .pixels()
            .saturating_mul(bytes_per_pixel)
            .saturating_add(layout.bytes_of_a_chunk(bytes.len() as u64))
            .saturating_add(WORKSPACE_BYTES),
    })
}

pub(super) fn pixels(bytes: &[u8]) -> Result<RgbImage, DecodeError> {
    let directory = directory(bytes)?;
    let layout = SampleLayout::from_directory(&directory)?;
    layout.check_padding()?;
    let places = ChunkPlaces::find(&directory, &layout, bytes.len() as u64)?;
    let range = if has_unit_range(&layout, &places, &directory)? { FloatRange::Unit } else { FloatRange::Bytes };
    let channels = layout.canvas_channels();
    let mut canvas = vec![0; layout.size.pixels() as usize * channels];
    for (index, chunk) in (0..).zip(layout.chunks()) {
        let rows = compression::decompress(chunk_bytes(&places, index)?, &layout, &chunk, &directory)?;
        paint(&mut canvas, &layout, &chunk, &rows, range);
    }
    if layout.has_associated_alpha {
        canvas = divided_by_alpha(canvas, channels);
    }
    let rgb = match layout.photometric {
        Photometric::Rgb | Photometric::YCbCr => canvas,
        Photometric::WhiteIsZero => canvas.into_iter().flat_map(|grey| [255 - grey; 3]).collect(),
        Photometric::BlackIsZero => canvas.into_iter().flat_map(|grey| [grey; 3]).collect(),
        Photometric::Palette => {
            let colors = palette(&directory)?;
            canvas.into_iter().flat_map(|index| colors[usize::from(index)]).collect()
        }
        Photometric::Cmyk => rgb_from_cmyk(canvas),
    };
    RgbImage::from_raw(layout.size.width, layout.size.height, rgb).ok_or_else(|| Tiff.corrupt("it has several sizes"))
}

/// The directory of the first page, if that is the picture.
fn directory(bytes: &[u8]) -> Result<Directory<'_>, DecodeError> {
    let missing = || Tiff.corrupt("its directory is missing, cut off or too long");
    let directory = Directory::of_first_page(bytes).ok_or_else(missing)?;
    let is_reduced = directory.value(Tag::NewSubfileType).is_some_and(|kind| kind & 1 == 1);
    let has_others = directory.values(Tag::DngVersion).is_some() || directory.values(Tag::SubIfds).is_some();
    if is_reduced && has_others {
        return Err(Tiff.unsupported("the raw file of a camera (such as DNG), whose first page is only a thumbnail"));
    }
    Ok(directory)
}

fn chunk_bytes<'a>(places: &ChunkPlaces<'a>, index: u64) -> Result<&'a [u8], DecodeError> {
    places.bytes(index).ok_or_else(|| Tiff.corrupt("its pixels lie outside the file"))
}

/// Returns whether samples are floating-point numbers of the range 0 to 1, by the largest one. As numbers of 0 to 255 they
/// would be black.
fn has_unit_range(
    layout: &SampleLayout,
    places: &ChunkPlaces<'_>,
    directory: &Directory<'_>,
) -> Result<bool, DecodeError> {
    let SampleDepth::Float(bits) = layout.depth else { return Ok(false) };
    let (samples, colors) = (layout.samples_per_chunk_pixel, layout.photometric.channels());
    for (index, chunk) in (0..).zip(layout.chunks()).filter(|(_, chunk)| chunk.plane < colors) {
        let rows = compression::decompress(chunk_bytes(places, index)?, layout, &chunk, directory)?;
        for row in rows.chunks_exact(layout.row_bytes(chunk.width)) {
            let floats = samples::floats(row, bits, layout);
            if floats
                .chunks_exact(samples)
                .any(|pixel| pixel.iter().take(colors).any(|&float| float > MAX_OF_UNIT_RANGE))
            {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Writes the samples of a chunk to the canvas `[H, W, channels]`.
fn paint(canvas: &mut [u8], layout: &SampleLayout, chunk: &TiffChunk, rows: &[u8], range: FloatRange) {
    let channels = layout.canvas_channels();
    let samples = layout.samples_per_chunk_pixel;
    let width = layout.size.width as usize;
    let visible = chunk.width.min(width - chunk.x);
    let mut values = vec![0; chunk.width * samples];
    for (y, row) in rows.chunks_exact(layout.row_bytes(chunk.width)).enumerate() {
        samples::to_bytes(row, layout, range, &mut values);
        let start = ((chunk.y + y) * width + chunk.x) * channels;
        let line = &mut canvas[start..start + visible * channels];
        if layout.is_planar {
            for (pixel, &value) in line.chunks_exact_mut(channels).zip(&values) {
                pixel[chunk.plane] = value;
            }
        } else {
            for (pixel, samples) in line.chunks_exact_mut(channels).zip(values.chunks_exact(samples)) {
                pixel.copy_from_slice(&samples[..channels]);
            }
        }
    }
}

/// Divides the colours of a canvas `[H, W, channels]` by its last channel, and leaves that out, in place.
fn divided_by_alpha(mut canvas: Vec<u8>, channels: usize) -> Vec<u8> {
    let (pixels, colors) = (canvas.len() / channels, channels - 1);
    for pixel in 0..pixels {
        let alpha = u32::from(canvas[pixel * channels + colors]);
        for color in 0..colors {
            let value = u32::from(canvas[pixel * channels + color]);
            // Colours that cannot be are white; what is clear is black, as Pillow has it.
            canvas[pixel * colors + color] = (value * 255).checked_div(alpha).map_or(0, |value| value.min(255) as u8);
        }
    }
    canvas.truncate(pixels * colors);
    canvas
}

/// The colours of all indices. Indices that the file does not define are black.
fn palette(directory: &Directory<'_>) -> Result<[[u8; 3]; 256], DecodeError> {
    let map = directory.values(Tag::ColorMap).ok_or_else(|| Tiff.corrupt("its palette is missing"))?;
    // All reds, then all greens, then all blues, of 16 bits.
    let entries = map.count / 3;
    let value = |index: u64| map.get(index).map_or(0, |value| (value >> 8) as u8);
    Ok(std::array::from_fn(|index| match index as u64 {
        index if index < entries => [value(index), value(entries + index), value(2 * entries + index)],
        _ => [0; 3],
    }))
}

/// CMYK `[H, W, 4]` to RGB `[H, W, 3]`, in place.
fn rgb_from_cmyk(mut cmyk: Vec<u8>) -> Vec<u8> {
    for pixel in cmyk.chunks_exact_mut(4) {
        let paper = 255 - u32::from(pixel[3]);
        for ink in &mut pixel[..3] {
            // Rounded as Pillow does it: the ink's share of what black leaves.
            let share = u32::from(*ink) * paper + 128;
            *ink = (paper - ((share + (share >> 8)) >> 8)) as u8;
        }
    }
    without_alpha(cmyk)
}
