//! Layout of the samples in a TIFF file, from the tags of its directory.

use super::directory::{Directory, Tag, TagValues};
use crate::image::ImageSize;
use crate::image::decode::DecodeError;
use crate::image::decode::Format::Tiff;

/// Size, kind and arrangement of the samples.
pub(super) struct SampleLayout {
    pub(super) size: ImageSize,
    pub(super) photometric: Photometric,
    pub(super) depth: SampleDepth,
    pub(super) compression: Compression,
    pub(super) predictor: Predictor,
    pub(super) is_planar: bool,
    pub(super) is_little_endian: bool,
    /// All samples of a pixel, alpha and other extra ones included; 1 where they are in planes.
    pub(super) samples_per_chunk_pixel: usize,
    samples: usize,
    is_tiled: bool,
    chunk: ImageSize,
}

/// Compression of all chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Fax4,
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

impl Compression {
    pub(super) fn from_tag(value: u64) -> Result<Self, DecodeError> {
        match value {
            1 => Ok(Self::None),
            4 => Ok(Self::Fax4),
            5 => Ok(Self::Lzw),
            7 => Ok(Self::Jpeg),
            8 | 32_946 => Ok(Self::Deflate),
            32_773 => Ok(Self::PackBits),
            other => Err(Tiff.unsupported(format!("compression {other}"))),
        }
    }
}

/// Meaning of the samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Photometric {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    /// Only inside a JPEG, whose decoder converts it to RGB.
    YCbCr,
}

/// Bits and number format of every sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleDepth {
    /// 1, 2, 4, 8 or 16 bits.
    Unsigned(u32),
    /// 16, 32 or 64 bits.
    Float(u32),
}

/// Transformation of the samples before compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predictor {
    None,
    /// The difference to the pixel on the left.
    Difference,
    /// Differences of the bytes of a row, which are sorted by significance first.
    FloatDifference,
}

/// A strip or a tile.
#[derive(Clone, Copy, Debug)]
pub(super) struct TiffChunk {
    pub(super) plane: usize,
    /// Its place on the canvas.
    pub(super) x: usize,
    pub(super) y: usize,
    /// Pixels, of which those of a tile may lie beyond the right edge.
    pub(super) width: usize,
    /// Rows inside the picture.
    pub(super) height: usize,
}

impl Photometric {
    pub(super) const fn channels(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

impl SampleDepth {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Unsigned(bits) | Self::Float(bits) => bits,
        }
    }
}

impl SampleLayout {
    /// Most samples of a pixel: four colours and some extra ones.
    const MAX_SAMPLES: u64 = 16;
    /// What tiles may have beyond four times the picture.
    const MAX_PADDING_BYTES: u64 = 64 << 20;

    pub(super) fn from_directory(directory: &Directory<'_>) -> Result<Self, DecodeError> {
        let value = |tag, default| directory.value(tag).unwrap_or(default);
        let side = |tag| directory.value(tag).and_then(|side| u32::try_from(side).ok());
        let (Some(width), Some(height)) = (side(Tag::ImageWidth), side(Tag::ImageLength)) else {
            return Err(Tiff.corrupt("it does not say its size"));
        };
        let compression = Compression::from_tag(value(Tag::Compression, 1))?;
        let photometric = match value(Tag::PhotometricInterpretation, 1) {
            0 => Photometric::WhiteIsZero,
            1 => Photometric::BlackIsZero,
            2 => Photometric::Rgb,
            3 => Photometric::Palette,
            5 => Photometric::Cmyk,
            6 if compression == Compression::Jpeg => Photometric::YCbCr,
            other => return Err(Tiff.unsupported(format!("photometric interpretation {other}"))),
        };
        let samples = value(Tag::SamplesPerPixel, 1);
        if samples < photometric.channels() as u64 || samples > Self::MAX_SAMPLES {
            return Err(Tiff.unsupported(format!("{samples} samples a pixel")));
        }
        let is_tiled = directory.value(Tag::TileOffsets).is_some();
        let chunk = if is_tiled {
            (side(Tag::TileWidth), side(Tag::TileLength))
        } else {
            (Some(width), Some(side(Tag::RowsPerStrip).unwrap_or(height).min(height)))
        };
        let (Some(chunk_width @ 1..), Some(chunk_height @ 1..)) = chunk else {
            return Err(Tiff.corrupt("its strips or tiles have no size"));
        };
        let is_planar = samples > 1 && value(Tag::PlanarConfiguration, 1) == 2;
        let layout = Self {
            size: ImageSize { width, height },
            photometric,
            depth: depth(directory)?,
            compression,
            predictor: predictor(value(Tag::Predictor, 1))?,
            is_planar,
            is_little_endian: directory.fields.is_little_endian(),
            samples_per_chunk_pixel: if is_planar { 1 } else { samples as usize },
            samples: samples as usize,
            is_tiled,
            chunk: ImageSize { width: chunk_width, height: chunk_height },
        };
        layout.check(value(Tag::FillOrder, 1))?;
        Ok(layout)
    }

    /// Checks that depth, predictor, compression and bit order can be combined here.
    fn check(&self, fill_order: u64) -> Result<(), DecodeError> {
        let predictor_fits = match self.predictor {
            Predictor::None => true,
            Predictor::Difference => matches!(self.depth, SampleDepth::Unsigned(8 | 16)),
            Predictor::FloatDifference => matches!(self.depth, SampleDepth::Float(_)),
        };
        let depth_fits = match self.compression {
            Compression::Jpeg => self.depth == SampleDepth::Unsigned(8) && self.predictor == Predictor::None,
            Compression::Fax4 => self.depth == SampleDepth::Unsigned(1) && self.samples == 1,
            _ => self.photometric != Photometric::Palette || matches!(self.depth, SampleDepth::Unsigned(1..=8)),
        };
        if fill_order != 1 {
            return Err(Tiff.unsupported(format!("fill order {fill_order}")));
        }
        if !predictor_fits || !depth_fits {
            let Self { depth, predictor, compression, photometric, .. } = self;
            return Err(Tiff.unsupported(format!("{depth:?}, {predictor:?}, {compression:?} and {photometric:?}")));
        }
        Ok(())
    }

    /// Checks that chunks hold little more than the picture: time grows with what is decompressed.
    pub(super) fn check_padding(&self) -> Result<(), DecodeError> {
        let decoded = self.chunk_count().saturating_mul(self.decompressed_bytes());
        let picture =
            (self.size.pixels().saturating_mul(self.samples as u64 * u64::from(self.depth.bits()))).div_ceil(8);
        if decoded > picture.saturating_mul(4).saturating_add(Self::MAX_PADDING_BYTES) {
            return Err(Tiff.corrupt("its tiles are far larger than the picture"));
        }
        Ok(())
    }

    /// Bytes of a row of `width` pixels in a chunk.
    pub(super) const fn row_bytes(&self, width: usize) -> usize {
        (width * self.samples_per_chunk_pixel * self.depth.bits() as usize).div_ceil(8)
    }

    /// Bytes of the largest chunk when it is decompressed.
    fn decompressed_bytes(&self) -> u64 {
        let bits = u64::from(self.depth.bits()) * self.samples_per_chunk_pixel as u64;
        let row = u64::from(self.chunk.width).saturating_mul(bits).div_ceil(8);
        row.saturating_mul(u64::from(self.chunk.height.min(self.size.height)))
    }

    /// Most bytes that are held for a chunk: its decompressed rows, a row as bytes, and a JPEG's copy and decoder.
    pub(super) fn bytes_of_a_chunk(&self, file_bytes: u64) -> u64 {
        let row = u64::from(self.chunk.width).saturating_mul(8 * self.samples_per_chunk_pixel as u64);
        let jpeg = match self.compression {
            // Coefficients of two bytes, in whole blocks, rows of them upsampled, and samples.
            Compression::Jpeg => {
                let side = |length: u32| u64::from(length).next_multiple_of(32);
                let (width, height) = (side(self.chunk.width), side(self.chunk.height));
                2 * file_bytes + width.saturating_mul(height + 32 * 4).saturating_mul(3 * self.samples as u64)
            }
            _ => 0,
        };
        self.decompressed_bytes().saturating_add(row).saturating_add(jpeg)
    }

    pub(super) const fn chunk_height(&self) -> u32 {
        self.chunk.height
    }

    fn chunks_across(&self) -> u64 {
        u64::from(self.size.width.div_ceil(self.chunk.width))
    }

    fn chunks_down(&self) -> u64 {
        u64::from(self.size.height.div_ceil(self.chunk.height))
    }

    fn planes(&self) -> u64 {
        if self.is_planar { self.samples as u64 } else { 1 }
    }

    fn chunk_count(&self) -> u64 {
        self.chunks_across() * self.chunks_down().saturating_mul(self.planes())
    }

    /// Offsets and lengths of all chunks, in the order of [`Self::chunks`].
    pub(super) fn places<'a>(&self, directory: &Directory<'a>) -> Option<(TagValues<'a>, TagValues<'a>)> {
        let (offsets, lengths) = if self.is_tiled {
            (Tag::TileOffsets, Tag::TileByteCounts)
        } else {
            (Tag::StripOffsets, Tag::StripByteCounts)
        };
        let (offsets, lengths) = (directory.values(offsets)?, directory.values(lengths)?);
        (offsets.count.min(lengths.count) >= self.chunk_count()).then_some((offsets, lengths))
    }

    /// The chunks that hold colours: plane after plane, row after row.
    pub(super) fn chunks(&self) -> impl Iterator<Item = TiffChunk> {
        let (width, height) = (self.chunk.width as usize, self.chunk.height as usize);
        let picture_height = self.size.height as usize;
        let (across, down) = (self.chunks_across() as usize, self.chunks_down() as usize);
        let planes = if self.is_planar { self.photometric.channels() } else { 1 };
        (0..planes * down * across).map(move |index| {
            let (plane, place) = (index / (down * across), index % (down * across));
            let (x, y) = (place % across * width, place / across * height);
            TiffChunk { plane, x, y, width, height: height.min(picture_height - y) }
        })
    }
}

fn depth(directory: &Directory<'_>) -> Result<SampleDepth, DecodeError> {
    // One value for every sample, or one for all of them.
    let uniform = |tag, default| {
        let Some(values) = directory.values(tag) else { return Some(default) };
        let first = values.get(0)?;
        values.iter().take(SampleLayout::MAX_SAMPLES as usize).all(|value| value == first).then_some(first)
    };
    match (uniform(Tag::SampleFormat, 1), uniform(Tag::BitsPerSample, 1)) {
        (Some(1 | 4), Some(bits @ (1 | 2 | 4 | 8 | 16))) => Ok(SampleDepth::Unsigned(bits as u32)),
        (Some(3), Some(bits @ (16 | 32 | 64))) => Ok(SampleDepth::Float(bits as u32)),
        (Some(2), _) => Err(Tiff.unsupported("signed samples")),
        (_, Some(bits)) => Err(Tiff.unsupported(format!("samples of {bits} bits"))),
        (_, None) => Err(Tiff.unsupported("samples of different depths")),
    }
}

fn predictor(value: u64) -> Result<Predictor, DecodeError> {
    match value {
        1 => Ok(Predictor::None),
        2 => Ok(Predictor::Difference),
        3 => Ok(Predictor::FloatDifference),
        other => Err(Tiff.unsupported(format!("predictor {other}"))),
    }
}
