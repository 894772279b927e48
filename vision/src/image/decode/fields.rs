//! Integers at byte offsets of a file. Offsets outside the file give `None`.

/// Order of the bytes of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ByteOrder {
    Big,
    Little,
}

/// A file read with one byte order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    order: ByteOrder,
}

impl<'a> Fields<'a> {
    pub(super) const fn big_endian(bytes: &'a [u8]) -> Self {
        Self { bytes, order: ByteOrder::Big }
    }

    pub(super) const fn little_endian(bytes: &'a [u8]) -> Self {
        Self { bytes, order: ByteOrder::Little }
    }

    pub(super) const fn order(&self) -> ByteOrder {
        self.order
    }

    /// `length` bytes from `at`.
    pub(super) fn slice(&self, at: u64, length: u64) -> Option<&'a [u8]> {
        let start = usize::try_from(at).ok()?;
        self.bytes.get(start..start.checked_add(usize::try_from(length).ok()?)?)
    }

    pub(super) fn u8(&self, at: u64) -> Option<u8> {
        Some(u8::from_be_bytes(self.array(at)?))
    }

    pub(super) fn u16(&self, at: u64) -> Option<u16> {
        let field = self.array(at)?;
        Some(match self.order {
            ByteOrder::Big => u16::from_be_bytes(field),
            ByteOrder::Little => u16::from_le_bytes(field),
        })
    }

    pub(super) fn u32(&self, at: u64) -> Option<u32> {
        let field = self.array(at)?;
        Some(match self.order {
            ByteOrder::Big => u32::from_be_bytes(field),
            ByteOrder::Little => u32::from_le_bytes(field),
        })
    }

    pub(super) fn u64(&self, at: u64) -> Option<u64> {
        let field = self.array(at)?;
        Some(match self.order {
            ByteOrder::Big => u64::from_be_bytes(field),
            ByteOrder::Little => u64::from_le_bytes(field),
        })
    }

    fn array<const N: usize>(&self, at: u64) -> Option<[u8; N]> {
        self.slice(at, N as u64)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_outside_the_file_gives_none() {
        let fields = Fields::big_endian(&[1, 2, 3, 4]);
        assert_eq!((fields.u16(2), fields.u32(0)), (Some(0x0304), Some(0x0102_0304)));
        assert_eq!(Fields::little_endian(&[1, 2]).u16(0), Some(0x0201));
        for at in [3, 4, u64::MAX - 1, u64::MAX] {
            assert_eq!((fields.u16(at), fields.u64(at)), (None, None), "{at}");
        }
    }
}
