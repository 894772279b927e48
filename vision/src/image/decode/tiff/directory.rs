//! The first directory of a TIFF file: its tags and their values.

use crate::image::decode::fields::Fields;

/// Tags that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Tag {
    ImageWidth = 256,
    ImageLength = 257,
    BitsPerSample = 258,
    Compression = 259,
    PhotometricInterpretation = 262,
    FillOrder = 266,
    StripOffsets = 273,
    Orientation = 274,
    SamplesPerPixel = 277,
    RowsPerStrip = 278,
    StripByteCounts = 279,
    PlanarConfiguration = 284,
    Predictor = 317,
    ColorMap = 320,
    TileWidth = 322,
    TileLength = 323,
    TileOffsets = 324,
    TileByteCounts = 325,
    SampleFormat = 339,
    JpegTables = 347,
}

/// The entries of the first page.
pub(super) struct Directory<'a> {
    pub(super) fields: Fields<'a>,
    big: bool,
    entries_at: u64,
    entries: u64,
}

/// Position and number of a tag's values.
#[derive(Clone, Copy)]
pub(super) struct TagValues<'a> {
    fields: Fields<'a>,
    at: u64,
    bytes_per_value: u64,
    pub(super) count: u64,
}

impl<'a> Directory<'a> {
    /// Most entries. Scanners and microscopes write dozens.
    const MAX_ENTRIES: u64 = 1024;

    /// The directory of the first page; `None` if it is missing, cut off or has more than 1024 entries.
    pub(super) fn of_first_page(bytes: &'a [u8]) -> Option<Self> {
        let fields = match bytes.get(..2)? {
            b"II" => Fields::little_endian(bytes),
            b"MM" => Fields::big_endian(bytes),
            _ => return None,
        };
        let (big, entries_at, entries) = match fields.u16(2)? {
            42 => {
                let at = u64::from(fields.u32(4)?);
                (false, at.checked_add(2)?, u64::from(fields.u16(at)?))
            }
            43 => {
                let at = fields.u64(8)?;
                (true, at.checked_add(8)?, fields.u64(at)?)
            }
            _ => return None,
        };
        let directory = Self { fields, big, entries_at, entries };
        let is_whole =
            entries <= Self::MAX_ENTRIES && fields.slice(entries_at, entries * directory.entry_bytes()).is_some();
        is_whole.then_some(directory)
    }

    /// The values of `tag`, if it is there and its values are whole numbers inside the file.
    pub(super) fn values(&self, tag: Tag) -> Option<TagValues<'a>> {
        let inline_bytes = if self.big { 8 } else { 4 };
        let mut places = (0..self.entries).map(|index| self.entries_at + index * self.entry_bytes());
        let entry = places.find(|&at| self.fields.u16(at) == Some(tag as u16))?;
        let bytes_per_value = match self.fields.u16(entry + 2)? {
            // BYTE, ASCII and UNDEFINED; SHORT; LONG; LONG8.
            1 | 2 | 7 => 1,
            3 => 2,
            4 => 4,
            16 => 8,
            _ => return None,
        };
        let (count, value_at) = if self.big {
            (self.fields.u64(entry + 4)?, entry + 12)
        } else {
            (u64::from(self.fields.u32(entry + 4)?), entry + 8)
        };
        let length = count.checked_mul(bytes_per_value)?;
        let at = match (length <= inline_bytes, self.big) {
            (true, _) => value_at,
            (false, true) => self.fields.u64(value_at)?,
            (false, false) => u64::from(self.fields.u32(value_at)?),
        };
        self.fields.slice(at, length)?;
        Some(TagValues { fields: self.fields, at, bytes_per_value, count })
    }

    const fn entry_bytes(&self) -> u64 {
        if self.big { 20 } else { 12 }
    }

    /// The first value of `tag`.
    pub(super) fn value(&self, tag: Tag) -> Option<u64> {
        self.values(tag)?.get(0)
    }
}

impl<'a> TagValues<'a> {
    pub(super) fn get(&self, index: u64) -> Option<u64> {
        if index >= self.count {
            return None;
        }
        let at = self.at + index * self.bytes_per_value;
        match self.bytes_per_value {
            1 => self.fields.u8(at).map(u64::from),
            2 => self.fields.u16(at).map(u64::from),
            4 => self.fields.u32(at).map(u64::from),
            _ => self.fields.u64(at),
        }
    }

    pub(super) fn iter(self) -> impl Iterator<Item = u64> {
        (0..self.count).map_while(move |index| self.get(index))
    }

    /// The values as bytes of the file.
    pub(super) fn bytes(&self) -> Option<&'a [u8]> {
        self.fields.slice(self.at, self.count * self.bytes_per_value)
    }
}
