//! Pictures whose pixels are labels (numbers of classes or objects, not colours), as PNG files.

use std::io::Cursor;

use png::{BitDepth, ColorType, Compression, Decoder, DecodingError, Encoder, Limits, Transformations};

use super::decode::png::FirstFrame;
use super::{DecodeError, DecodeLimits, ImageSize};

/// A label for every pixel, and how its file shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelPicture {
    size: ImageSize,
    labels: Vec<u8>,
    style: LabelStyle,
}

/// How labels are stored in a PNG file: bits of a label, colours of a palette or shades of grey, compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelStyle {
    bit_depth: BitDepth,
    palette: Option<Palette>,
    compression: LabelCompression,
}

/// Effort of compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LabelCompression {
    /// For replies, which are read once.
    Fast,
    /// For files that are kept.
    Balanced,
}

impl LabelStyle {
    /// The palette that PASCAL VOC and DAVIS give to labels of 8 bits, so that any viewer tells them apart.
    pub fn voc() -> Self {
        let colors = (0..=255).flat_map(voc_color).collect();
        Self {
            bit_depth: BitDepth::Eight,
            palette: Some(Palette { colors, opacities: None }),
            compression: LabelCompression::Balanced,
        }
    }

    /// The style of a file that was read.
    const fn read(bit_depth: BitDepth, palette: Option<Palette>) -> Self {
        Self { bit_depth, palette, compression: LabelCompression::Fast }
    }
}

/// The RGB colour of a label in PASCAL VOC: its bits, from the lowest on, go to red, green and blue in turn, and fill
/// each from the highest bit downwards.
fn voc_color(label: u8) -> [u8; 3] {
    let mut rgb = [0; 3];
    for bit in 0..8 {
        rgb[bit % 3] |= (label >> bit & 1) << (7 - bit / 3);
    }
    rgb
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Palette {
    /// Red, green and blue of every label.
    colors: Vec<u8>,
    /// Opacity of the first labels.
    opacities: Option<Vec<u8>>,
}

/// An error of reading a label picture.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// Another format (415).
    #[error("the mask is not a PNG file")]
    NotPng,
    /// Pixels that are colours, or numbers of 16 bits (415).
    #[error("the mask's pixels are {found}: a mask is a PNG with a palette, or grey with at most 8 bits")]
    NotLabels {
        /// The kind of pixels found.
        found: &'static str,
    },
    /// The data are damaged or cut off (422).
    #[error("the mask's PNG data are damaged or cut off: {detail}")]
    Corrupt {
        /// The decoder's message.
        detail: String,
    },
    /// More pixels than the limit (413).
    #[error("the mask has {} x {} pixels; at most {max_pixels} pixels are decoded here", size.width, size.height)]
    TooManyPixels {
        /// The size its header states.
        size: ImageSize,
        /// The limit.
        max_pixels: u64,
    },
}

/// Labels that could not be written as PNG.
#[derive(Debug, thiserror::Error)]
#[error("the labels could not be written as PNG")]
pub struct LabelEncodingError(#[from] png::EncodingError);

impl LabelPicture {
    /// The size that the header of a PNG file states, if its pixels are labels.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), but for damage beyond the header.
    pub fn probe(file: &[u8], limits: &DecodeLimits) -> Result<ImageSize, LabelError> {
        Opened::new(file, *limits).map(|opened| opened.size)
    }

    /// Reads a PNG file with a palette, or grey with 1, 2, 4 or 8 bits; the header first, before memory is taken for
    /// pixels. A label is the number in the file: an index, or a level of grey that is not stretched to 255.
    ///
    /// # Errors
    /// See [`LabelError`]; each variant says which HTTP status it is meant to become.
    pub fn decode(file: &[u8], limits: &DecodeLimits) -> Result<Self, LabelError> {
        let Opened { decoder, size } = Opened::new(file, *limits)?;
        let FirstFrame { reader, samples, row_bytes } =
            FirstFrame::read(decoder, file, size).map_err(|error| LabelError::Corrupt {
                detail: if let DecodeError::Corrupt { detail, .. } = error { detail } else { error.to_string() },
            })?;
        let (_, depth) = reader.output_color_type();
        let labels = unpacked(&samples, row_bytes, depth, size);
        // The transparent shade of a grey mask is no label's colour; it is dropped.
        let palette = reader.info().palette.as_ref().map(|colors| Palette {
            colors: colors.to_vec(),
            opacities: reader.info().trns.as_ref().map(|opacities| opacities.to_vec()),
        });
        Ok(Self { size, labels, style: LabelStyle::read(depth, palette) })
    }

    /// Its width and height.
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// The labels, row by row.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The labels, row by row, by value.
    pub fn into_labels(self) -> Vec<u8> {
        self.labels
    }

    /// How its file stores labels.
    pub fn style(&self) -> &LabelStyle {
        &self.style
    }
}

/// A decoder that has read and accepted the header.
struct Opened<'a> {
    decoder: Decoder<Cursor<&'a [u8]>>,
    size: ImageSize,
}

impl<'a> Opened<'a> {
    fn new(file: &'a [u8], limits: DecodeLimits) -> Result<Self, LabelError> {
        const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
        const TABLES_BYTES: usize = 4 << 20;
        if !file.starts_with(SIGNATURE) {
            return Err(LabelError::NotPng);
        }
        let mut decoder = Decoder::new_with_limits(Cursor::new(file), Limits { bytes: TABLES_BYTES });
        decoder.set_transformations(Transformations::IDENTITY);
        let header = decoder.read_header_info().map_err(corrupt)?;
        let (color, depth) = (header.color_type, header.bit_depth);
        let size = ImageSize { width: header.width, height: header.height };
        check_kind(color, depth)?;
        if size.pixels() > limits.max_pixels {
            return Err(LabelError::TooManyPixels { size, max_pixels: limits.max_pixels });
        }
        Ok(Self { decoder, size })
    }
}

fn check_kind(color: ColorType, depth: BitDepth) -> Result<(), LabelError> {
    let found = match (color, depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => "grey with 16 bits",
        (ColorType::Grayscale | ColorType::Indexed, _) => return Ok(()),
        (ColorType::GrayscaleAlpha, _) => "grey with an alpha channel",
        (ColorType::Rgb, _) => "RGB colours",
        (ColorType::Rgba, _) => "RGB colours with an alpha channel",
    };
    Err(LabelError::NotLabels { found })
}

#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn corrupt(error: DecodingError) -> LabelError {
    LabelError::Corrupt { detail: error.to_string() }
}

fn pixels_per_byte(depth: BitDepth) -> usize {
    8 / (depth as usize).clamp(1, 8)
}

/// One byte a pixel. A file packs up to eight into one, the leftmost in the highest bits; rows begin on a byte.
fn unpacked(packed: &[u8], line_bytes: usize, depth: BitDepth, size: ImageSize) -> Vec<u8> {
    let (per_byte, bits) = (pixels_per_byte(depth), depth as usize);
    let mask = ((1_u16 << bits) - 1) as u8;
    let mut labels = Vec::with_capacity(size.pixels() as usize);
    for line in packed.chunks_exact(line_bytes) {
        labels.extend((0..size.width as usize).map(|x| (line[x / per_byte] >> (8 - bits * (x % per_byte + 1))) & mask));
    }
    labels
}

/// The reverse of [`unpacked`].
fn packed(labels: &[u8], depth: BitDepth, width: usize) -> Vec<u8> {
    let (per_byte, bits) = (pixels_per_byte(depth), depth as usize);
    let mut packed = Vec::with_capacity(labels.len().div_ceil(per_byte));
    for line in labels.chunks_exact(width) {
        packed.extend(line.chunks(per_byte).map(|pixels| {
            pixels.iter().enumerate().fold(0, |byte, (place, label)| byte | label << (8 - bits * (place + 1)))
        }));
    }
    packed
}

/// Encodes `labels`, `[size.height, size.width]` in row order, as a PNG file of the given style.
///
/// # Errors
/// [`LabelEncodingError`] if the encoder refuses: a side of 0, or another number of labels.
pub fn encode_labels(labels: &[u8], size: ImageSize, style: &LabelStyle) -> Result<Vec<u8>, LabelEncodingError> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, size.width, size.height);
    encoder.set_depth(style.bit_depth);
    encoder.set_compression(match style.compression {
        LabelCompression::Fast => Compression::Fast,
        LabelCompression::Balanced => Compression::Balanced,
    });
    match &style.palette {
        None => encoder.set_color(ColorType::Grayscale),
        Some(Palette { colors, opacities }) => {
            encoder.set_color(ColorType::Indexed);
            encoder.set_palette(colors.as_slice());
            if let Some(opacities) = opacities {
                encoder.set_trns(opacities.as_slice());
            }
        }
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&packed(labels, style.bit_depth, size.width.max(1) as usize))?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 10_000 };

    fn style(bit_depth: BitDepth, has_palette: bool) -> LabelStyle {
        let palette = Palette {
            colors: (0..3 * (1 << (bit_depth as u32))).map(|i| i as u8).collect(),
            opacities: Some(vec![0, 9]),
        };
        LabelStyle::read(bit_depth, has_palette.then_some(palette))
    }

    fn file(color: ColorType, depth: BitDepth, bytes: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(bytes).unwrap();
        file
    }

    proptest! {
        #[test]
        fn labels_come_back_as_they_were(width in 1_u32..40, height in 1_u32..9, depth in 0..4, has_palette: bool, seed: u8) {
            let depth = [BitDepth::One, BitDepth::Two, BitDepth::Four, BitDepth::Eight][depth as usize];
            let size = ImageSize { width, height };
            let highest = ((1_u16 << depth as u16) - 1) as u8;
            let labels: Vec<u8> = (0..size.pixels()).map(|i| (i as u8).wrapping_mul(seed) & highest).collect();
            let written = encode_labels(&labels, size, &style(depth, has_palette)).unwrap();
            let read = LabelPicture::decode(&written, &LIMITS).unwrap();
            prop_assert_eq!(read, LabelPicture { size, labels, style: style(depth, has_palette) });
        }
    }

    #[test]
    fn colors_are_those_of_voc() {
        let known = [(0, [0, 0, 0]), (1, [128, 0, 0]), (2, [0, 128, 0]), (3, [128, 128, 0]), (4, [0, 0, 128])];
        for (label, rgb) in known.into_iter().chain([(8, [64, 0, 0]), (20, [0, 64, 128]), (255, [224, 224, 192])]) {
            assert_eq!(voc_color(label), rgb, "{label}");
        }
    }

    /// Data sets that were written before stay the same, byte for byte.
    #[test]
    fn the_voc_style_writes_what_the_encoder_writes_unless_told_otherwise() {
        let labels: Vec<u8> = (0..40_u32 * 30).map(|i| ((i % 40 / 7) * (i / 40 / 9)) as u8).chain(0..=255).collect();
        let (width, height) = (4, labels.len() as u32 / 4);
        let mut expected = Vec::new();
        let mut encoder = Encoder::new(&mut expected, width, height);
        encoder.set_color(ColorType::Indexed);
        encoder.set_depth(BitDepth::Eight);
        encoder.set_palette((0..=255).flat_map(voc_color).collect::<Vec<u8>>());
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&labels).unwrap();
        writer.finish().unwrap();
        let size = ImageSize { width, height };
        assert_eq!(encode_labels(&labels, size, &LabelStyle::voc()).unwrap(), expected);
        assert_eq!(LabelPicture::decode(&expected, &LIMITS).unwrap().labels(), labels);
    }

    #[test]
    fn other_pixels_are_not_labels() {
        let kinds = [
            (ColorType::Rgb, BitDepth::Eight, 6),
            (ColorType::Rgba, BitDepth::Eight, 8),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, 4),
            (ColorType::Grayscale, BitDepth::Sixteen, 4),
        ];
        for (color, depth, bytes) in kinds {
            let error = LabelPicture::decode(&file(color, depth, &vec![0; bytes]), &LIMITS).unwrap_err();
            assert!(matches!(error, LabelError::NotLabels { .. }), "{error}");
        }
    }

    #[test]
    fn damage_and_size_are_told_apart() {
        let good = file(ColorType::Grayscale, BitDepth::Eight, &[1, 2]);
        assert!(matches!(LabelPicture::decode(b"GIF89a", &LIMITS), Err(LabelError::NotPng)));
        assert!(matches!(LabelPicture::decode(&good[..40], &LIMITS), Err(LabelError::Corrupt { .. })));
        let few = DecodeLimits { max_pixels: 1 };
        assert!(matches!(LabelPicture::decode(&good, &few), Err(LabelError::TooManyPixels { max_pixels: 1, .. })));
    }
}
