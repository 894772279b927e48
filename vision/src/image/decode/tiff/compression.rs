//! Decompression of a chunk of a TIFF file.

use std::borrow::Cow;

use flate2::{Decompress, FlushDecompress};
use hayro_ccitt::{DecodeSettings, Decoder, DecoderContext, EncodingMode};
use weezl::{BitOrder, LzwStatus};
use zune_jpeg::zune_core::colorspace::ColorSpace;

use super::sample_layout::{Compression, FaxCoding, FillOrder, Photometric, SampleLayout, TiffChunk};
use crate::image::decode::Format::Tiff;
use crate::image::decode::directory::{Directory, Tag};
use crate::image::decode::{DecodeError, jpeg};

/// Decompresses the rows of `chunk` that are inside the picture, and nothing behind them.
pub(super) fn decompress<'a>(
    compressed: &'a [u8],
    layout: &SampleLayout,
    chunk: &TiffChunk,
    directory: &Directory<'_>,
) -> Result<Cow<'a, [u8]>, DecodeError> {
    let length = layout.row_bytes(chunk.width) * chunk.height;
    let compressed = match layout.compression {
        Compression::None => Cow::Borrowed(compressed.get(..length).unwrap_or_default()),
        _ => Cow::Borrowed(compressed),
    };
    // The bits of a JPEG have their own order.
    let compressed = if layout.fill_order == FillOrder::LowestBitFirst && layout.compression != Compression::Jpeg {
        Cow::Owned(compressed.iter().map(|byte| byte.reverse_bits()).collect())
    } else {
        compressed
    };
    let rows = match layout.compression {
        Compression::None => (compressed.len() == length).then_some(compressed),
        Compression::Fax(coding) => fax(&compressed, coding, chunk, length).map(Cow::Owned),
        Compression::Lzw => lzw(&compressed, length).map(Cow::Owned),
        Compression::Deflate => deflate(&compressed, length).map(Cow::Owned),
        Compression::PackBits => pack_bits(&compressed, length).map(Cow::Owned),
        Compression::Jpeg => {
            let tables = directory.values(Tag::JpegTables).and_then(|tables| tables.bytes());
            Some(Cow::Owned(jpeg_rows(&compressed, tables, layout, chunk, length)?))
        }
    };
    rows.ok_or_else(|| Tiff.corrupt("a strip or tile ends before its pixels do"))
}

fn lzw(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut decoder = weezl::decode::Decoder::with_tiff_size_switch(BitOrder::Msb, 8);
    let mut rows = vec![0; length];
    let (mut read, mut written) = (0, 0);
    while written < length {
        let result = decoder.decode_bytes(&compressed[read..], &mut rows[written..]);
        read += result.consumed_in;
        written += result.consumed_out;
        match result.status.ok()? {
            LzwStatus::Ok => {}
            LzwStatus::NoProgress | LzwStatus::Done => break,
        }
    }
    (written == length).then_some(rows)
}

fn deflate(compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut decoder = Decompress::new(true);
    let mut rows = vec![0; length];
    // The stream may hold more than these rows, so it need not end here.
    decoder.decompress(compressed, &mut rows, FlushDecompress::Finish).ok()?;
    (decoder.total_out() == length as u64).then_some(rows)
}

fn pack_bits(mut compressed: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut rows = Vec::with_capacity(length);
    while rows.len() < length {
        let (&control, rest) = compressed.split_first()?;
        compressed = match control {
            128 => rest,
            literal @ 0..128 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(literal) + 1)?;
                rows.extend_from_slice(&bytes[..bytes.len().min(length - rows.len())]);
                rest
            }
            repeated => {
                let (&byte, rest) = rest.split_first()?;
                let run = 257 - usize::from(repeated);
                rows.resize((rows.len() + run).min(length), byte);
                rest
            }
        };
    }
    Some(rows)
}

/// CCITT fax; white is 0. Damaged rows are white where the coding allows to go on behind them.
fn fax(compressed: &[u8], coding: FaxCoding, chunk: &TiffChunk, length: usize) -> Option<Vec<u8>> {
    let settings = DecodeSettings {
        columns: u32::try_from(chunk.width).ok()?,
        rows: u32::try_from(chunk.height).ok()?,
        end_of_block: true,
        // Found out from the data.
        end_of_line: false,
        rows_are_byte_aligned: coding == FaxCoding::RunLengths,
        encoding: match coding {
            FaxCoding::RunLengths | FaxCoding::Group3 { is_2d: false } => EncodingMode::Group3_1D,
            FaxCoding::Group3 { is_2d: true } => EncodingMode::Group3_2D,
            FaxCoding::Group4 => EncodingMode::Group4,
        },
        strict: false,
    };
    let mut rows = FaxRows { rows: Vec::with_capacity(length), width: chunk.width };
    // An error ends the rows; behind the last one it does not matter.
    hayro_ccitt::decode(compressed, &mut rows, &mut DecoderContext::new(settings)).ok();
    (rows.rows.len() == length).then_some(rows.rows)
}

/// Rows of one bit a pixel.
struct FaxRows {
    rows: Vec<u8>,
    width: usize,
}

impl Decoder for FaxRows {
    fn push_row(&mut self, changes: &[u32]) {
        let start = self.rows.len();
        self.rows.resize(start + self.width.div_ceil(8), 0);
        let row = &mut self.rows[start..];
        for run in changes.chunks(2) {
            let end = run.get(1).map_or(self.width, |&end| end as usize);
            fill_bits(row, run[0] as usize, end.min(self.width));
        }
    }
}

/// Sets the bits from `start` to before `end`, the highest of a byte first.
fn fill_bits(row: &mut [u8], start: usize, end: usize) {
    let mut x = start;
    while x < end {
        if x.is_multiple_of(8) && end - x >= 8 {
            row[x / 8] = 0xFF;
            x += 8;
        } else {
            row[x / 8] |= 0x80 >> (x % 8);
            x += 1;
        }
    }
}

/// Decodes a chunk that is a JPEG file, whose tables may be in the directory.
fn jpeg_rows(
    compressed: &[u8],
    tables: Option<&[u8]>,
    layout: &SampleLayout,
    chunk: &TiffChunk,
    length: usize,
) -> Result<Vec<u8>, DecodeError> {
    // Both begin and end with a marker of two bytes; the inner ones are left out.
    let file = match tables {
        Some([tables @ .., _, _]) if compressed.len() > 2 => [tables, &compressed[2..]].concat(),
        _ => compressed.to_vec(),
    };
    let size = jpeg::header(&file)?.stored;
    let channels = layout.samples_per_chunk_pixel;
    if size.width as usize != chunk.width
        || (size.height as usize) < chunk.height
        || size.height > layout.chunk_height()
    {
        return Err(Tiff.corrupt("a JPEG inside it is not of the size of its strip or tile"));
    }
    let color_space = (layout.photometric == Photometric::YCbCr).then_some(ColorSpace::RGB);
    let mut rows = jpeg::samples(&file, color_space)?;
    if rows.len() != chunk.width * size.height as usize * channels {
        return Err(Tiff.corrupt("a JPEG inside it does not have its samples"));
    }
    rows.truncate(length);
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_literals_are_unpacked_and_cut_off_where_the_rows_end() {
        // Three literals, nothing, a run of four.
        let packed = [2, 1, 2, 3, 128, 253, 9];
        assert_eq!(pack_bits(&packed, 7).unwrap(), [1, 2, 3, 9, 9, 9, 9]);
        assert_eq!(pack_bits(&packed, 5).unwrap(), [1, 2, 3, 9, 9]);
        assert_eq!(pack_bits(&packed, 2).unwrap(), [1, 2]);
    }

    #[test]
    fn too_few_bytes_are_no_rows() {
        for cut in 0..7 {
            assert_eq!(pack_bits(&[2, 1, 2, 3, 128, 253, 9][..cut], 7), None, "{cut}");
        }
        let compressed = weezl::encode::Encoder::with_tiff_size_switch(BitOrder::Msb, 8).encode(&[7; 500]).unwrap();
        assert_eq!(lzw(&compressed, 500).unwrap(), [7; 500]);
        assert_eq!(lzw(&compressed, 501), None);
        assert_eq!(lzw(&compressed[..compressed.len() / 2], 500), None);
        assert_eq!(deflate(b"\x78\x01\x03\x00\x00\x00\x00\x01", 1), None);
    }

    #[test]
    fn runs_of_a_fax_become_bits() {
        let mut rows = FaxRows { rows: Vec::new(), width: 21 };
        for changes in [&[][..], &[0], &[3, 5, 7, 18], &[20]] {
            rows.push_row(changes);
        }
        let expected = [0, 0, 0, 0xFF, 0xFF, 0xF8, 0b0001_1001, 0xFF, 0b1100_0000, 0, 0, 0b0000_1000];
        assert_eq!(rows.rows, expected);
    }
}
