//! BMP: 1 to 32 bits, palettes, run lengths, bit masks, from bottom or top.
//!
//! Files come with seven kinds of headers and with fields that nobody keeps to. They are read here, and the library gets
//! the same pixels behind a header that it knows, with a palette of numbers: what an index stands for is looked up here.

use ::image::metadata::Orientation;
use ::image::{ImageFormat, RgbImage};

use super::Format::Bmp;
use super::fields::Fields;
use super::palette::all_colors;
use super::{DecodeError, FileHeader, decode_with_image};
use crate::image::ImageSize;

/// Length of the file's own header; the picture's header follows.
const FILE_HEADER: u64 = 14;
/// Length of the picture's header that is written here, and of its colour masks.
const INFO_HEADER: u32 = 40;
const MASKS: u32 = 12;
/// Most colours of a palette, of which indices of 8 bits use 256.
const MAX_COLORS: u32 = 65_536;

/// Kinds of compression.
mod compression {
    pub(super) const NONE: u32 = 0;
    pub(super) const RUN_LENGTHS_4: u32 = 2;
    pub(super) const BIT_MASKS: u32 = 3;
}

pub(super) fn header(bytes: &[u8]) -> Result<FileHeader, DecodeError> {
    let BmpHeader { size, .. } = BmpHeader::read(bytes)?;
    // RGBA, and then RGB; rows; the file as the library gets it.
    let rows = u64::from(size.width) * 8;
    let file = bytes.len() as u64 + u64::from(INFO_HEADER + MASKS) + 4 * 256;
    let decoding_bytes = size.pixels().saturating_mul(7).saturating_add(rows + file);
    Ok(FileHeader { stored: size, orientation: Orientation::NoTransforms, decoding_bytes })
}

pub(super) fn pixels(bytes: &[u8], decoding_bytes: u64) -> Result<RgbImage, DecodeError> {
    let header = BmpHeader::read(bytes)?;
    let mut picture = decode_with_image(&header.known_file(bytes)?, Bmp, ImageFormat::Bmp, decoding_bytes)?;
    if header.has_palette() {
        let colors = header.palette(bytes);
        let (pixels, _) = picture.as_chunks_mut::<3>();
        for pixel in pixels {
            *pixel = colors[usize::from(pixel[0])];
        }
    }
    if header.is_from_top {
        ::image::imageops::flip_vertical_in_place(&mut picture);
    }
    Ok(picture)
}

/// Fields of the headers.
struct BmpHeader {
    size: ImageSize,
    is_from_top: bool,
    bits: u16,
    compression: u32,
    /// Red, green and blue.
    masks: Option<[u32; 3]>,
    colors: u32,
    bytes_per_color: u32,
    palette_at: u64,
    pixels_at: u64,
}

impl BmpHeader {
    /// Length of OS/2's first header, with 16-bit sizes and colours of three bytes.
    const CORE: u32 = 12;
    /// Length of OS/2's second header, whose compression is numbered differently.
    const OS2: u32 = 64;
    /// Lengths of headers with masks inside.
    const WITH_MASKS: [u32; 4] = [52, 56, 108, 124];

    fn read(bytes: &[u8]) -> Result<Self, DecodeError> {
        let fields = Fields::little_endian(bytes);
        let cut_off = || Bmp.corrupt("its header is cut off");
        let length = fields.u32(FILE_HEADER).ok_or_else(cut_off)?;
        let read = match length {
            Self::CORE => Self::read_core(fields),
            INFO_HEADER | Self::OS2 => Self::read_info(fields, length),
            _ if Self::WITH_MASKS.contains(&length) => Self::read_info(fields, length),
            _ => return Err(Bmp.unsupported(format!("a header of {length} bytes"))),
        };
        let header = read.ok_or_else(cut_off)?;
        if header.colors > MAX_COLORS {
            return Err(Bmp.corrupt(format!("its palette has {} colours", header.colors)));
        }
        if length == Self::OS2 && header.compression > compression::RUN_LENGTHS_4 {
            return Err(Bmp.unsupported("a compression of OS/2"));
        }
        Ok(header)
    }

    fn read_core(fields: Fields<'_>) -> Option<Self> {
        let field = |at| fields.u16(FILE_HEADER + at);
        let bits = field(10)?;
        let header = Self {
            size: ImageSize { width: field(4)?.into(), height: field(6)?.into() },
            is_from_top: false,
            bits,
            compression: compression::NONE,
            masks: None,
            colors: Self::colors(0, bits),
            bytes_per_color: 3,
            palette_at: FILE_HEADER + u64::from(Self::CORE),
            pixels_at: 0,
        };
        header.with_place_of_pixels(fields)
    }

    fn read_info(fields: Fields<'_>, length: u32) -> Option<Self> {
        let field = |at| fields.u32(FILE_HEADER + at);
        let bits = fields.u16(FILE_HEADER + 14)?;
        // A negative height means that the rows begin at the top.
        let height = field(8)?.cast_signed();
        let compression = field(16)?;
        let masks = match compression {
            compression::BIT_MASKS if length != Self::OS2 => Some([field(40)?, field(44)?, field(48)?]),
            _ => None,
        };
        let masks_behind = if masks.is_some() && length == INFO_HEADER { MASKS } else { 0 };
        let header = Self {
            size: ImageSize { width: field(4)?, height: height.unsigned_abs() },
            is_from_top: height < 0,
            bits,
            compression,
            masks,
            colors: Self::colors(field(32)?, bits),
            bytes_per_color: 4,
            palette_at: FILE_HEADER + u64::from(length + masks_behind),
            pixels_at: 0,
        };
        header.with_uniform_masks().with_place_of_pixels(fields)
    }

    /// Colours of the palette; 0 stands for as many as there are indices.
    fn colors(stated: u32, bits: u16) -> u32 {
        match bits {
            0..=8 if stated == 0 => 1 << bits,
            0..=8 => stated,
            _ => 0,
        }
    }

    /// Leaves out masks that say what is so without any.
    fn with_uniform_masks(mut self) -> Self {
        const RGB: [u32; 3] = [0xFF_0000, 0xFF00, 0xFF];
        let is_plain = match (self.bits, self.masks) {
            (24, Some(masks)) => masks == RGB,
            (32, Some(masks)) => masks == [0; 3],
            _ => false,
        };
        if is_plain {
            self.masks = None;
            self.compression = compression::NONE;
        }
        self
    }

    /// Adds the place of the pixels. Careless writers leave it out, or leave the palette out of it.
    fn with_place_of_pixels(mut self, fields: Fields<'_>) -> Option<Self> {
        let behind_palette = self.palette_at + u64::from(self.bytes_per_color) * u64::from(self.colors);
        self.pixels_at = match u64::from(fields.u32(10)?) {
            0 => behind_palette,
            stated if stated == self.palette_at && self.has_palette() => behind_palette,
            stated => stated,
        };
        Some(self)
    }

    const fn has_palette(&self) -> bool {
        self.bits <= 8
    }

    /// The colours of all indices.
    fn palette(&self, bytes: &[u8]) -> [[u8; 3]; 256] {
        let fields = Fields::little_endian(bytes);
        let entries = (0..self.colors.min(256)).map(|index| {
            let at = self.palette_at + u64::from(self.bytes_per_color) * u64::from(index);
            fields.slice(at, 3).map_or([0; 3], |bgr| [bgr[2], bgr[1], bgr[0]])
        });
        all_colors(&entries.collect::<Vec<_>>())
    }

    /// The file with a header that the library knows, from the bottom, whose palette has an index for every colour.
    fn known_file(&self, bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let pixels = usize::try_from(self.pixels_at).ok().and_then(|at| bytes.get(at..));
        let pixels = pixels.ok_or_else(|| Bmp.corrupt("its pixels lie outside the file"))?;
        let masks = self.masks.iter().flatten().flat_map(|mask| mask.to_le_bytes());
        let entries = if self.has_palette() { 1_u32 << self.bits } else { 0 };
        let palette = (0..entries).flat_map(|index| [index as u8, index as u8, index as u8, 0]);
        let mut file =
            Vec::with_capacity((FILE_HEADER as usize + (INFO_HEADER + MASKS) as usize + 4 * 256) + pixels.len());
        file.extend(b"BM");
        file.extend([0; 8]);
        // Where the pixels begin is filled in below.
        file.extend([0; 4]);
        file.extend(INFO_HEADER.to_le_bytes());
        file.extend(self.size.width.to_le_bytes());
        file.extend(self.size.height.to_le_bytes());
        file.extend(1_u16.to_le_bytes());
        file.extend(self.bits.to_le_bytes());
        file.extend(self.compression.to_le_bytes());
        file.extend([0; 20]);
        file.extend(masks);
        file.extend(palette);
        let pixels_at = (file.len() as u32).to_le_bytes();
        file[10..14].copy_from_slice(&pixels_at);
        file.extend(pixels);
        file.extend(std::iter::repeat_n(0, self.missing_padding(pixels.len())));
        Ok(file)
    }

    /// Bytes that pad the last row and are not in the file, which has `stored` bytes of pixels. Careless writers leave them
    /// out.
    fn missing_padding(&self, stored: usize) -> usize {
        if !matches!(self.compression, compression::NONE | compression::BIT_MASKS) {
            return 0;
        }
        let row = (u64::from(self.size.width) * u64::from(self.bits)).div_ceil(8);
        let padded = row.next_multiple_of(4);
        let missing = padded.saturating_mul(u64::from(self.size.height)).saturating_sub(stored as u64);
        if missing <= padded - row { missing as usize } else { 0 }
    }
}
