//! Label maps: PNG files whose pixels are numbers of classes, with a palette or grey.
//!
//! The number is the index into the palette, not the colour that the palette shows it in.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, Transformations};

use super::DataError;

/// The label of each pixel, in row order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LabelMap {
    pub(super) width_px: u32,
    pub(super) height_px: u32,
    pub(super) labels: Vec<u8>,
}

impl LabelMap {
    /// Reads a PNG with a palette, or a grey one, of at most 8 bits.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let file = File::open(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
        Self::decode(BufReader::new(file)).map_err(|reason| DataError::LabelMap { path: path.to_owned(), reason })
    }

    fn decode(source: impl std::io::BufRead + std::io::Seek) -> Result<Self, String> {
        let mut decoder = Decoder::new(source);
        decoder.set_transformations(Transformations::IDENTITY);
        let mut reader = decoder.read_info().map_err(|error| error.to_string())?;
        let (color, depth) = reader.output_color_type();
        if !matches!(color, ColorType::Indexed | ColorType::Grayscale) || depth == BitDepth::Sixteen {
            return Err(format!("it holds {color:?} of {} bits; expected a palette or grey of 8", depth as u8));
        }
        let size = reader.output_buffer_size().ok_or("it is too large")?;
        let mut packed = vec![0; size];
        let frame = reader.next_frame(&mut packed).map_err(|error| error.to_string())?;
        let (width_px, height_px) = (frame.width, frame.height);
        let rows = packed.chunks_exact(frame.line_size).take(height_px as usize);
        let labels = rows.flat_map(|row| unpacked(row, depth as usize).take(width_px as usize)).collect();
        Ok(Self { width_px, height_px, labels })
    }
}

/// The numbers in a row of 1, 2, 4 or 8 bits each, highest bits first.
fn unpacked(row: &[u8], bits: usize) -> impl Iterator<Item = u8> {
    let mask = u8::MAX >> (8 - bits);
    row.iter().flat_map(move |&byte| (0..8 / bits).map(move |i| byte >> (8 - bits * (i + 1)) & mask))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn encoded(width: u32, height: u32, (color, depth): (ColorType, BitDepth), data: &[u8]) -> Cursor<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette([[9, 9, 9]; 16].concat());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        Cursor::new(bytes)
    }

    #[test]
    fn indices_are_read_at_every_depth_and_not_their_colours() {
        let packed: [(BitDepth, &[u8]); 3] = [
            (BitDepth::Eight, &[3, 0, 7, 1, 2, 15]),
            (BitDepth::Four, &[0x30, 0x70, 0x12, 0xf0]),
            (BitDepth::Two, &[0b11_00_10_00, 0b01_10_11_00]),
        ];
        let wanted: [&[u8]; 3] = [&[3, 0, 7, 1, 2, 15], &[3, 0, 7, 1, 2, 15], &[3, 0, 2, 1, 2, 3]];
        for ((depth, data), labels) in packed.into_iter().zip(wanted) {
            for color in [ColorType::Indexed, ColorType::Grayscale] {
                let map = LabelMap::decode(encoded(3, 2, (color, depth), data)).unwrap();
                assert_eq!((map.width_px, map.height_px, map.labels.as_slice()), (3, 2, labels), "{depth:?}");
            }
        }
    }

    #[test]
    fn colours_are_no_labels() {
        let coloured = encoded(1, 1, (ColorType::Rgb, BitDepth::Eight), &[128, 0, 0]);
        assert!(LabelMap::decode(coloured).unwrap_err().contains("palette"));
        let deep = encoded(1, 1, (ColorType::Grayscale, BitDepth::Sixteen), &[1, 0]);
        assert!(LabelMap::decode(deep).unwrap_err().contains("16 bits"));
        let mut cut = encoded(2, 2, (ColorType::Grayscale, BitDepth::Eight), &[0; 4]).into_inner();
        cut.truncate(cut.len() - 25);
        assert!(LabelMap::decode(Cursor::new(cut)).is_err());
    }
}
