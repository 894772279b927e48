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
//! - leaves the conversion of YCbCr, CMYK, floating-point and 16-bit samples to the caller, which is most of what is here.

mod compression;
mod directory;
mod sample_layout;
mod samples;

use ::image::RgbImage;
use ::image::metadata::Orientation;

use self::directory::{Directory, Tag};
use self::sample_layout::{Photometric, SampleLayout, TiffChunk};
use super::Format::Tiff;
use super::png::without_alpha;
use super::{DecodeError, FileHeader};

/// Tables of the decompressors, and rows of samples.
const WORKSPACE_BYTES: u64 = 1 << 18;

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let directory = directory(bytes)?;
    let layout = SampleLayout::from_directory(&directory)?;
    let exif = directory.value(Tag::Orientation).and_then(|value| u8::try_from(value).ok());
    let channels = layout.photometric.channels() as u64;
    // Grey and palettes become RGB in a second buffer, the others where they are.
    let bytes_per_pixel = if channels == 1 { 4 } else { channels };
    Ok(FileHeader {
        stored: layout.size,
        orientation: exif.and_then(Orientation::from_exif).unwrap_or(Orientation::NoTransforms),
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
    let cut_off = || Tiff.corrupt("its pixels lie outside the file, or there are too few of them");
    let (offsets, lengths) = layout.places(&directory).ok_or_else(cut_off)?;
    // Chunks may share bytes, as empty tiles do, but not so that a small file is read a thousand times.
    let bytes_read = lengths.iter().fold(0_u64, u64::saturating_add);
    if bytes_read > 4 * bytes.len() as u64 {
        return Err(Tiff.corrupt("its strips or tiles are longer than the file"));
    }
    let channels = layout.photometric.channels();
    let mut canvas = vec![0; layout.size.pixels() as usize * channels];
    for (chunk, (offset, length)) in layout.chunks().zip(offsets.iter().zip(lengths.iter())) {
        let compressed = directory.fields.slice(offset, length).ok_or_else(cut_off)?;
        let rows = compression::decompress(compressed, &layout, &chunk, &directory)?;
        paint(&mut canvas, &layout, &chunk, &rows);
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

fn directory(bytes: &[u8]) -> Result<Directory<'_>, DecodeError> {
    Directory::of_first_page(bytes).ok_or_else(|| Tiff.corrupt("its directory is missing, cut off or too long"))
}

/// Writes the samples of a chunk to the canvas `[H, W, channels]`.
fn paint(canvas: &mut [u8], layout: &SampleLayout, chunk: &TiffChunk, rows: &[u8]) {
    let channels = layout.photometric.channels();
    let samples = layout.samples_per_chunk_pixel;
    let width = layout.size.width as usize;
    let visible = chunk.width.min(width - chunk.x);
    let mut values = vec![0; chunk.width * samples];
    for (y, row) in rows.chunks_exact(layout.row_bytes(chunk.width)).enumerate() {
        samples::to_bytes(row, layout, &mut values);
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
