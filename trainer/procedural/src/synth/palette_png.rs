//! Label maps as PNG files with a palette: one byte a pixel is the label, and the colours are those
//! that PASCAL VOC and DAVIS give to labels, so that any viewer shows the labels apart.

use std::path::Path;

use super::size::Size;
use super::{SynthError, write_error, write_file};

/// Writes `labels`, `[height, width]`, to `path`.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, labels: &[u8], size: Size) -> Result<(), SynthError> {
    let bytes = encode(labels, size).map_err(|source| write_error(path, source.into()))?;
    write_file(path, &bytes)
}

fn encode(labels: &[u8], size: Size) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, size.width_px, size.height_px);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette((0..=255).flat_map(colour).collect::<Vec<u8>>());
    let mut writer = encoder.write_header()?;
    writer.write_image_data(labels)?;
    writer.finish()?;
    Ok(bytes)
}

/// The colour of a label in VOC: its bits, dealt to red, green and blue in turn from the highest
/// bit of each downwards.
fn colour(label: u8) -> [u8; 3] {
    let mut rgb = [0; 3];
    for bit in 0..8 {
        rgb[bit % 3] |= (label >> bit & 1) << (7 - bit / 3);
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_voc() {
        let known = [(0, [0, 0, 0]), (1, [128, 0, 0]), (2, [0, 128, 0]), (3, [128, 128, 0]), (4, [0, 0, 128])];
        for (label, rgb) in known.into_iter().chain([(8, [64, 0, 0]), (20, [0, 64, 128]), (255, [224, 224, 192])]) {
            assert_eq!(colour(label), rgb, "{label}");
        }
    }

    #[test]
    fn labels_come_back() {
        let labels: Vec<u8> = (0..=255).collect();
        let bytes = encode(&labels, Size { width_px: 32, height_px: 8 }).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        assert_eq!(reader.info().color_type, png::ColorType::Indexed);
        let mut decoded = vec![0; 256];
        reader.next_frame(&mut decoded).unwrap();
        assert_eq!(decoded, labels);
    }
}
