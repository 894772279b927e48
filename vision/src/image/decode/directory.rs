//! The first directory of a TIFF file or of EXIF data: its tags and their values.

use ::image::metadata::Orientation;

use super::fields::Fields;

/// Tags that are read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Tag {
    NewSubfileType = 254,
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
    T4Options = 292,
    Predictor = 317,
    ColorMap = 320,
    TileWidth = 322,
    TileLength = 323,
    TileOffsets = 324,
    TileByteCounts = 325,
    SubIfds = 330,
    ExtraSamples = 338,
    SampleFormat = 339,
    JpegTables = 347,
    Xmp = 700,
    DngVersion = 50_706,
}

/// Types of values.
mod value_type {
    pub(super) const BYTE: u16 = 1;
    pub(super) const ASCII: u16 = 2;
    pub(super) const SHORT: u16 = 3;
    pub(super) const LONG: u16 = 4;
    pub(super) const RATIONAL: u16 = 5;
    pub(super) const SIGNED_BYTE: u16 = 6;
    pub(super) const UNDEFINED: u16 = 7;
    pub(super) const SIGNED_SHORT: u16 = 8;
    pub(super) const SIGNED_LONG: u16 = 9;
    pub(super) const SIGNED_RATIONAL: u16 = 10;
    pub(super) const FLOAT: u16 = 11;
    pub(super) const DOUBLE: u16 = 12;
    pub(super) const IFD: u16 = 13;
    pub(super) const LONG8: u16 = 16;
}

/// The entries of the first directory.
pub(super) struct Directory<'a> {
    pub(super) fields: Fields<'a>,
    big: bool,
    entries_at: u64,
    entries: u64,
}

/// Type and place of a tag's values, which are inside the file and at least one.
#[derive(Clone, Copy)]
struct Entry {
    value_type: u16,
    at: u64,
    count: u64,
    bytes_per_value: u64,
}

/// Position and number of a tag's values, which are whole numbers.
#[derive(Clone, Copy)]
pub(super) struct TagValues<'a> {
    fields: Fields<'a>,
    at: u64,
    bytes_per_value: u64,
    pub(super) count: u64,
}

impl<'a> Directory<'a> {
    /// Most entries of a TIFF file's directory. Scanners and microscopes write dozens.
    const MAX_ENTRIES: u64 = 1024;

    /// The directory of the first page; `None` if it is missing, cut off or has more than 1024 entries.
    pub(super) fn of_first_page(bytes: &'a [u8]) -> Option<Self> {
        let directory = Self::located(bytes)?;
        let length = directory.entries.checked_mul(directory.entry_bytes())?;
        let is_whole =
            directory.entries <= Self::MAX_ENTRIES && directory.fields.slice(directory.entries_at, length).is_some();
        is_whole.then_some(directory)
    }

    /// The directory of EXIF data, without the entries that are cut off.
    pub(super) fn of_exif(bytes: &'a [u8]) -> Option<Self> {
        let mut directory = Self::located(bytes)?;
        let present = (bytes.len() as u64).saturating_sub(directory.entries_at) / directory.entry_bytes();
        directory.entries = directory.entries.min(present);
        Some(directory)
    }

    fn located(bytes: &'a [u8]) -> Option<Self> {
        let fields = match bytes.get(..2)? {
            b"II" => Fields::little_endian(bytes),
            b"MM" => Fields::big_endian(bytes),
            _ => return None,
        };
        match fields.u16(2)? {
            // 42; with its bytes exchanged it comes from careless writers, who mean the order of the first two bytes.
            42 | 0x2A00 => {
                let at = u64::from(fields.u32(4)?);
                Some(Self { fields, big: false, entries_at: at + 2, entries: u64::from(fields.u16(at)?) })
            }
            43 => {
                let at = fields.u64(8)?;
                Some(Self { fields, big: true, entries_at: at.checked_add(8)?, entries: fields.u64(at)? })
            }
            _ => None,
        }
    }

    /// The values of `tag`, if it is there and its values are whole numbers inside the file.
    pub(super) fn values(&self, tag: Tag) -> Option<TagValues<'a>> {
        use value_type::{ASCII, BYTE, IFD, LONG, LONG8, SHORT, UNDEFINED};
        let Entry { value_type, at, count, bytes_per_value } = self.entry(tag)?;
        let is_whole = matches!(value_type, BYTE | ASCII | UNDEFINED | SHORT | LONG | IFD | LONG8);
        is_whole.then_some(TagValues { fields: self.fields, at, bytes_per_value, count })
    }

    /// The first value of `tag`.
    pub(super) fn value(&self, tag: Tag) -> Option<u64> {
        self.values(tag)?.get(0)
    }

    /// The orientation: the first value of its tag, which may be a number of any type. `None` if there is no such tag; a
    /// value that is no orientation, or no number, leaves the picture as it is.
    pub(super) fn orientation(&self) -> Option<Orientation> {
        let number = self.number(self.entry(Tag::Orientation)?);
        let known = number.and_then(|number| u8::try_from(number).ok()).and_then(Orientation::from_exif);
        Some(known.unwrap_or(Orientation::NoTransforms))
    }

    /// The first value of `entry`, if it is a whole number of a numeric type.
    fn number(&self, entry: Entry) -> Option<i64> {
        let (fields, at) = (self.fields, entry.at);
        let whole = |value: f64| (value.fract() == 0.0 && value.abs() < 1e9).then_some(value as i64);
        let quotient = |numerator: i64, denominator: i64| {
            (denominator != 0 && numerator % denominator == 0).then(|| numerator / denominator)
        };
        match entry.value_type {
            value_type::SHORT => fields.u16(at).map(i64::from),
            value_type::LONG | value_type::IFD => fields.u32(at).map(i64::from),
            value_type::LONG8 => i64::try_from(fields.u64(at)?).ok(),
            value_type::SIGNED_BYTE => fields.u8(at).map(|value| i64::from(value.cast_signed())),
            value_type::SIGNED_SHORT => fields.u16(at).map(|value| i64::from(value.cast_signed())),
            value_type::SIGNED_LONG => fields.u32(at).map(|value| i64::from(value.cast_signed())),
            value_type::RATIONAL => quotient(fields.u32(at)?.into(), fields.u32(at + 4)?.into()),
            value_type::SIGNED_RATIONAL => {
                quotient(fields.u32(at)?.cast_signed().into(), fields.u32(at + 4)?.cast_signed().into())
            }
            value_type::FLOAT => whole(f32::from_bits(fields.u32(at)?).into()),
            value_type::DOUBLE => whole(f64::from_bits(fields.u64(at)?)),
            // Bytes and text are no numbers.
            _ => None,
        }
    }

    /// The first entry of `tag` whose values have a known type and are inside the file.
    fn entry(&self, tag: Tag) -> Option<Entry> {
        let mut places = (0..self.entries).map(|index| self.entries_at + index * self.entry_bytes());
        places.find_map(|at| if self.fields.u16(at) == Some(tag as u16) { self.entry_at(at) } else { None })
    }

    fn entry_at(&self, entry: u64) -> Option<Entry> {
        let value_type = self.fields.u16(entry + 2)?;
        let bytes_per_value = match value_type {
            value_type::BYTE | value_type::ASCII | value_type::SIGNED_BYTE | value_type::UNDEFINED => 1,
            value_type::SHORT | value_type::SIGNED_SHORT => 2,
            value_type::LONG | value_type::SIGNED_LONG | value_type::FLOAT | value_type::IFD => 4,
            value_type::RATIONAL | value_type::SIGNED_RATIONAL | value_type::DOUBLE | value_type::LONG8 => 8,
            _ => return None,
        };
        let (count, value_at, inline_bytes) = if self.big {
            (self.fields.u64(entry + 4)?, entry + 12, 8)
        } else {
            (u64::from(self.fields.u32(entry + 4)?), entry + 8, 4)
        };
        let length = count.checked_mul(bytes_per_value)?;
        let at = match (length <= inline_bytes, self.big) {
            (true, _) => value_at,
            (false, true) => self.fields.u64(value_at)?,
            (false, false) => u64::from(self.fields.u32(value_at)?),
        };
        self.fields.slice(at, length)?;
        (count > 0).then_some(Entry { value_type, at, count, bytes_per_value })
    }

    const fn entry_bytes(&self) -> u64 {
        if self.big { 20 } else { 12 }
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
