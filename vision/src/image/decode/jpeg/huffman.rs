//! Bits and Huffman codes of the entropy-coded data of a JPEG file.
//!
//! Bits that are not in the file are `None`, never zero: that is what the data are read for here.

/// Bits of entropy-coded data, the highest of a byte first.
pub(super) struct BitReader<'a> {
    bytes: &'a [u8],
    position: usize,
    byte: u8,
    bits_left: u8,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, position: 0, byte: 0, bits_left: 0 }
    }

    /// Offset behind the byte of the last bit that was read.
    pub(super) const fn position(&self) -> usize {
        self.position
    }

    /// The next bit; `None` at a marker, and where the file ends.
    pub(super) fn bit(&mut self) -> Option<u32> {
        if self.bits_left == 0 {
            let (byte, length) = match *self.bytes.get(self.position..)? {
                [0xFF, 0x00, ..] => (0xFF, 2),
                [0xFF, ..] | [] => return None,
                [byte, ..] => (byte, 1),
            };
            self.byte = byte;
            self.bits_left = 8;
            self.position += length;
        }
        self.bits_left -= 1;
        Some(u32::from(self.byte >> self.bits_left) & 1)
    }

    /// The next `count` bits as a number, at most 15.
    pub(super) fn bits(&mut self, count: u8) -> Option<u32> {
        (0..count).try_fold(0, |number, _| Some(number << 1 | self.bit()?))
    }

    pub(super) fn skip(&mut self, count: u8) -> Option<()> {
        (0..count).try_for_each(|_| self.bit().map(|_| ()))
    }

    /// Passes a restart marker, which follows after the bits that complete a byte.
    pub(super) fn pass_restart_marker(&mut self) -> Option<()> {
        self.bits_left = 0;
        while self.bytes.get(self.position..)?.starts_with(&[0xFF, 0xFF]) {
            self.position += 1;
        }
        let [0xFF, 0xD0..=0xD7, ..] = *self.bytes.get(self.position..)? else { return None };
        self.position += 2;
        Some(())
    }
}

/// A Huffman table.
#[derive(Clone, Debug)]
struct HuffmanTable {
    /// Number of codes of 1 to 16 bits.
    counts: [u8; 16],
    /// Their values, shorter codes first.
    values: Vec<u8>,
}

impl HuffmanTable {
    /// Codes of a length are consecutive; the first is twice the number behind the last one that is a bit shorter.
    fn decode(&self, reader: &mut BitReader<'_>) -> Option<u8> {
        let (mut code, mut first, mut index) = (0_u32, 0_u32, 0_usize);
        for &count in &self.counts {
            code = code << 1 | reader.bit()?;
            let place = code.checked_sub(first)?;
            if place < u32::from(count) {
                return self.values.get(index + place as usize).copied();
            }
            index += usize::from(count);
            first = (first + u32::from(count)) << 1;
        }
        None
    }
}

/// Class of a table: for the mean of a block, or for its other coefficients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableClass {
    Dc = 0,
    Ac = 1,
}

/// The tables that are defined so far.
#[derive(Default)]
pub(super) struct HuffmanTables {
    tables: [[Option<HuffmanTable>; 4]; 2],
}

impl HuffmanTables {
    /// Takes the tables of a segment in; `None` if it is malformed.
    pub(super) fn define(&mut self, mut payload: &[u8]) -> Option<()> {
        while let Some((&class_and_number, rest)) = payload.split_first() {
            let (counts, rest) = rest.split_first_chunk::<16>()?;
            let (values, rest) = rest.split_at_checked(counts.iter().map(|&count| usize::from(count)).sum())?;
            let (class, number) = (usize::from(class_and_number >> 4), usize::from(class_and_number & 15));
            *self.tables.get_mut(class)?.get_mut(number)? =
                Some(HuffmanTable { counts: *counts, values: values.to_vec() });
            payload = rest;
        }
        Some(())
    }

    pub(super) fn is_defined(&self, class: TableClass, number: u8) -> bool {
        self.table(class, number).is_some()
    }

    /// The value of the next code by a table; `None` if the bits end, are no code, or there is no such table.
    pub(super) fn decode(&self, class: TableClass, number: u8, reader: &mut BitReader<'_>) -> Option<u8> {
        self.table(class, number)?.decode(reader)
    }

    fn table(&self, class: TableClass, number: u8) -> Option<&HuffmanTable> {
        self.tables[class as usize].get(usize::from(number))?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_end_at_markers_and_stuffing_is_passed() {
        let mut reader = BitReader::new(&[0b1010_0000, 0xFF, 0x00, 0xFF, 0xD3, 0x80, 0xFF, 0xD9]);
        assert_eq!((reader.bits(3), reader.bits(13)), (Some(0b101), Some(0xFF)));
        assert_eq!((reader.bit(), reader.position()), (None, 3));
        assert_eq!(reader.pass_restart_marker(), Some(()));
        assert_eq!((reader.bit(), reader.bits(8), reader.pass_restart_marker()), (Some(1), None, None));
    }

    #[test]
    fn codes_have_the_values_of_their_table() {
        let mut tables = HuffmanTables::default();
        // Codes 0, 10, 110 and 1110.
        let counts = [1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        tables.define(&[&[0x12][..], &counts, &[7, 8, 9, 10]].concat()).unwrap();
        assert!(tables.is_defined(TableClass::Ac, 2) && !tables.is_defined(TableClass::Dc, 2));
        let mut reader = BitReader::new(&[0b1100_1011, 0b1011_1111]);
        let values: Vec<_> = (0..5).map(|_| tables.decode(TableClass::Ac, 2, &mut reader)).collect();
        assert_eq!(values, [Some(9), Some(7), Some(8), Some(10), None]);
        assert_eq!(tables.define(&[0x50, 0]), None);
    }
}
