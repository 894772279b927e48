//! Layout of the samples in a TIFF file, from the tags of its directory.

use std::fmt;

use super::names;
use crate::image::ImageSize;
use crate::image::decode::DecodeError;
use crate::image::decode::Format::Tiff;
use crate::image::decode::directory::{Directory, Tag};
use crate::image::decode::fields::ByteOrder;

/// Size, kind and arrangement of the samples.
pub(super) struct SampleLayout {
    pub(super) size: ImageSize,
    pub(super) photometric: Photometric,
    pub(super) depth: SampleDepth,
    pub(super) compression: Compression,
    pub(super) predictor: Predictor,
    pub(super) is_planar: bool,
    pub(super) byte_order: ByteOrder,
    pub(super) fill_order: FillOrder,
    /// Colours are multiplied by the alpha that follows them.
    pub(super) has_associated_alpha: bool,
    /// All samples of a pixel, alpha and other extra ones included; 1 where they are in planes.
    pub(super) samples_per_chunk_pixel: usize,
    samples: usize,
    pub(super) is_tiled: bool,
    chunk: ImageSize,
    /// Cost of a chunk beyond its bytes, as decompressed bytes that take as long: making a decompressor ready.
    chunk_overhead: u64,
}

/// Compression of all chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Fax(FaxCoding),
    Lzw,
    Jpeg,
    Deflate,
    PackBits,
}

/// Codings of fax machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaxCoding {
    /// Rows that begin on a byte, without markers.
    RunLengths,
    Group3 {
        /// Rows may be coded by their differences to the one above.
        is_2d: bool,
    },
    Group4,
}

impl Compression {
    fn from_directory(directory: &Directory<'_>) -> Result<Self, DecodeError> {
        match directory.value(Tag::Compression).unwrap_or(1) {
            1 => Ok(Self::None),
            2 => Ok(Self::Fax(FaxCoding::RunLengths)),
            3 => match directory.value(Tag::T4Options).unwrap_or(0) {
                options if options & 2 != 0 => Err(Tiff.unsupported("fax group 3 with uncompressed parts")),
                options => Ok(Self::Fax(FaxCoding::Group3 { is_2d: options & 1 != 0 })),
            },
            4 => Ok(Self::Fax(FaxCoding::Group4)),
            5 => Ok(Self::Lzw),
            7 => Ok(Self::Jpeg),
            8 | 32_946 => Ok(Self::Deflate),
            32_773 => Ok(Self::PackBits),
            other => Err(Tiff.unsupported(names::compression(other))),
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

impl Photometric {
    fn from_directory(directory: &Directory<'_>, compression: Compression, samples: u64) -> Result<Self, DecodeError> {
        // Where it is missing the samples have to tell.
        let guess = if samples < 3 { 0 } else { 2 };
        match directory.value(Tag::PhotometricInterpretation).unwrap_or(guess) {
            0 => Ok(Self::WhiteIsZero),
            1 => Ok(Self::BlackIsZero),
            2 => Ok(Self::Rgb),
            3 => Ok(Self::Palette),
            5 => Ok(Self::Cmyk),
            6 if compression == Compression::Jpeg => Ok(Self::YCbCr),
            other => Err(Tiff.unsupported(names::photometric(other))),
        }
    }

    pub(super) const fn channels(self) -> usize {
        match self {
            Self::WhiteIsZero | Self::BlackIsZero | Self::Palette => 1,
            Self::Rgb | Self::YCbCr => 3,
            Self::Cmyk => 4,
        }
    }
}

/// Kind and bits of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SampleDepth {
    /// 1, 2, 4, 8, 12, 16 or 32 bits.
    Unsigned(u32),
    /// 16 or 32 bits.
    Signed(u32),
    /// 16, 32 or 64 bits.
    Float(u32),
}

impl SampleDepth {
    pub(super) const fn bits(self) -> u32 {
        match self {
            Self::Unsigned(bits) | Self::Signed(bits) | Self::Float(bits) => bits,
        }
    }
}

impl fmt::Display for SampleDepth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(bits) => write!(formatter, "samples of {bits} bits"),
            Self::Signed(bits) => write!(formatter, "signed samples of {bits} bits"),
            Self::Float(bits) => write!(formatter, "floating-point samples of {bits} bits"),
        }
    }
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

/// Order of the bits in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FillOrder {
    HighestBitFirst,
    LowestBitFirst,
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

impl SampleLayout {
    /// Most samples of a pixel: four colours and some extra ones.
    const MAX_SAMPLES: u64 = 16;
    /// What tiles may have beyond four times the picture.
    const MAX_PADDING_BYTES: u64 = 64 << 20;
    /// Allowance for making decompressors ready, beyond four times the picture.
    const MAX_OVERHEAD_BYTES: u64 = 256 << 20;

    pub(super) fn from_directory(directory: &Directory<'_>) -> Result<Self, DecodeError> {
        let value = |tag, default| directory.value(tag).unwrap_or(default);
        let side = |tag| directory.value(tag).and_then(|side| u32::try_from(side).ok());
        let (Some(width), Some(height)) = (side(Tag::ImageWidth), side(Tag::ImageLength)) else {
            return Err(Tiff.corrupt("it does not say its size"));
        };
        let samples = value(Tag::SamplesPerPixel, 1);
        let compression = Compression::from_directory(directory)?;
        let photometric = Photometric::from_directory(directory, compression, samples)?;
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
            predictor: predictor(directory, compression)?,
            is_planar,
            byte_order: directory.fields.order(),
            fill_order: fill_order(value(Tag::FillOrder, 1))?,
            has_associated_alpha: has_associated_alpha(directory, photometric, samples),
            samples_per_chunk_pixel: if is_planar { 1 } else { samples as usize },
            samples: samples as usize,
            is_tiled,
            chunk: ImageSize { width: chunk_width, height: chunk_height },
            chunk_overhead: chunk_overhead(directory, compression),
        };
        layout.check()?;
        Ok(layout)
    }

    /// Checks that depth, predictor and compression can be combined here.
    fn check(&self) -> Result<(), DecodeError> {
        let predictor_fits = match self.predictor {
            Predictor::None => true,
            Predictor::Difference => !matches!(self.depth, SampleDepth::Unsigned(1..8 | 12)),
            Predictor::FloatDifference => matches!(self.depth, SampleDepth::Float(_)),
        };
        let depth_fits = match self.compression {
            Compression::Jpeg => self.depth == SampleDepth::Unsigned(8),
            Compression::Fax(_) => self.depth == SampleDepth::Unsigned(1) && self.samples == 1,
            Compression::None | Compression::Lzw | Compression::Deflate | Compression::PackBits => {
                self.photometric != Photometric::Palette || matches!(self.depth, SampleDepth::Unsigned(1..=8))
            }
        };
        if predictor_fits && depth_fits {
            return Ok(());
        }
        let combined = match (depth_fits, self.compression) {
            (true, _) => "a predictor",
            (false, Compression::Jpeg) => "JPEG",
            (false, Compression::Fax(_)) => "fax",
            (false, _) => "a palette",
        };
        Err(Tiff.unsupported(format!("{} with {combined}", self.depth)))
    }

    /// Samples of a pixel of the canvas: its colours, and an alpha that they are multiplied by.
    pub(super) fn canvas_channels(&self) -> usize {
        self.photometric.channels() + usize::from(self.has_associated_alpha)
    }

    /// Checks that chunks hold little more than the picture, and are not far too many: time grows with what is
    /// decompressed, and with the number of decompressors.
    pub(super) fn check_padding(&self) -> Result<(), DecodeError> {
        let chunk_bytes = match self.compression {
            // In whole blocks.
            Compression::Jpeg => u64::from(self.chunk.width)
                .next_multiple_of(8)
                .saturating_mul(u64::from(self.chunk.height).next_multiple_of(8) * self.samples_per_chunk_pixel as u64),
            _ => self.decompressed_bytes(),
        };
        let decoded = self.chunk_count().saturating_mul(chunk_bytes);
        let picture =
            (self.size.pixels().saturating_mul(self.samples as u64 * u64::from(self.depth.bits()))).div_ceil(8);
        if decoded > picture.saturating_mul(4).saturating_add(Self::MAX_PADDING_BYTES) {
            return Err(Tiff.corrupt("its tiles are far larger than the picture"));
        }
        let overhead = self.chunk_count().saturating_mul(self.chunk_overhead);
        if overhead > picture.saturating_mul(4).saturating_add(Self::MAX_OVERHEAD_BYTES) {
            return Err(Tiff.corrupt("it has far too many strips or tiles for its size"));
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

    /// Most bytes that are held for a chunk of a file of `file_bytes`: its decompressed rows, a row as numbers and as
    /// bytes, its bytes with their bits reversed, a JPEG's copy and decoder, and the places of all chunks.
    pub(super) fn bytes_of_a_chunk(&self, file_bytes: u64) -> u64 {
        let row = u64::from(self.chunk.width).saturating_mul(16 * self.samples_per_chunk_pixel as u64);
        let coding = match self.compression {
            // Coefficients of two bytes, in whole blocks, rows of them upsampled, and samples.
            Compression::Jpeg => {
                let side = |length: u32| u64::from(length).next_multiple_of(32);
                let (width, height) = (side(self.chunk.width), side(self.chunk.height));
                let decoder = width.saturating_mul(height + 32 * 4).saturating_mul(3 * self.samples as u64);
                file_bytes.saturating_mul(3).saturating_add(decoder)
            }
            // The changes of colour in two rows.
            Compression::Fax(_) => u64::from(self.chunk.width).saturating_mul(16),
            Compression::None | Compression::Lzw | Compression::Deflate | Compression::PackBits => 0,
        };
        let reversed = if self.fill_order == FillOrder::LowestBitFirst { file_bytes } else { 0 };
        let places = self.chunk_count().min(file_bytes).saturating_mul(8);
        self.decompressed_bytes()
            .saturating_add(row)
            .saturating_add(coding)
            .saturating_add(reversed)
            .saturating_add(places)
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

    /// Number of all chunks, those of extra samples included.
    pub(super) fn chunk_count(&self) -> u64 {
        self.chunks_across().saturating_mul(self.chunks_down()).saturating_mul(self.planes())
    }

    /// The chunks that hold samples of the canvas: plane after plane, row after row.
    pub(super) fn chunks(&self) -> impl Iterator<Item = TiffChunk> {
        let (width, height) = (self.chunk.width as usize, self.chunk.height as usize);
        let picture_height = self.size.height as usize;
        let (across, down) = (self.chunks_across() as usize, self.chunks_down() as usize);
        let planes = if self.is_planar { self.canvas_channels() } else { 1 };
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
        (Some(1 | 4), Some(bits @ (1 | 2 | 4 | 8 | 12 | 16 | 32))) => Ok(SampleDepth::Unsigned(bits as u32)),
        // As libtiff and Pillow read them: those who write signed bytes mean unsigned ones.
        (Some(2), Some(8)) => Ok(SampleDepth::Unsigned(8)),
        (Some(2), Some(bits @ (16 | 32))) => Ok(SampleDepth::Signed(bits as u32)),
        (Some(3), Some(bits @ (16 | 32 | 64))) => Ok(SampleDepth::Float(bits as u32)),
        (Some(5 | 6), _) => Err(Tiff.unsupported("complex numbers")),
        (_, Some(bits)) => Err(Tiff.unsupported(format!("samples of {bits} bits"))),
        (_, None) => Err(Tiff.unsupported("samples of different depths")),
    }
}

/// The cost of a chunk beyond its bytes, see [`SampleLayout::chunk_overhead`]. All chunks share a JPEG's tables, which are
/// parsed with each.
fn chunk_overhead(directory: &Directory<'_>, compression: Compression) -> u64 {
    match compression {
        Compression::None => 0,
        Compression::Fax(_) | Compression::PackBits | Compression::Lzw | Compression::Deflate => 4 << 10,
        Compression::Jpeg => {
            let tables = directory.values(Tag::JpegTables).and_then(|tables| tables.bytes());
            (32 << 10) + tables.map_or(0, <[u8]>::len) as u64
        }
    }
}

/// Only these compressions have a predictor; in front of others the tag means nothing.
fn predictor(directory: &Directory<'_>, compression: Compression) -> Result<Predictor, DecodeError> {
    let has_predictor = matches!(compression, Compression::Lzw | Compression::Deflate | Compression::PackBits);
    match directory.value(Tag::Predictor).filter(|_| has_predictor).unwrap_or(1) {
        1 => Ok(Predictor::None),
        2 => Ok(Predictor::Difference),
        3 => Ok(Predictor::FloatDifference),
        other => Err(Tiff.unsupported(format!("predictor {other}"))),
    }
}

fn fill_order(value: u64) -> Result<FillOrder, DecodeError> {
    match value {
        1 => Ok(FillOrder::HighestBitFirst),
        2 => Ok(FillOrder::LowestBitFirst),
        other => Err(Tiff.unsupported(format!("fill order {other}"))),
    }
}

/// Returns whether the first extra sample is an alpha that grey or RGB are multiplied by.
fn has_associated_alpha(directory: &Directory<'_>, photometric: Photometric, samples: u64) -> bool {
    let has_extra = samples > photometric.channels() as u64;
    let is_divided = matches!(photometric, Photometric::BlackIsZero | Photometric::Rgb);
    has_extra && is_divided && directory.value(Tag::ExtraSamples) == Some(1)
}
