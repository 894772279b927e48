//! Pickles of plain values, tensors and arrays, for files that others read.

use std::io::{self, Write};

/// Writes opcodes of protocol 2, and `BINBYTES` of protocol 3 for arrays.
pub(crate) struct PickleWriter<W> {
    out: W,
}

impl<W: Write> PickleWriter<W> {
    /// Begins a pickle.
    pub(crate) fn new(mut out: W, protocol: u8) -> io::Result<Self> {
        out.write_all(&[0x80, protocol])?;
        Ok(Self { out })
    }

    /// Ends the pickle; its value is what was written.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(b".")?;
        Ok(self.out)
    }

    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.counted(b'X', text.as_bytes())
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.counted(b'B', bytes)
    }

    pub(crate) fn boolean(&mut self, value: bool) -> io::Result<()> {
        self.out.write_all(if value { b"\x88" } else { b"\x89" })
    }

    /// An integer that fits into 32 bits, or a length.
    pub(crate) fn integer(&mut self, value: i64) -> io::Result<()> {
        if let Ok(short) = i32::try_from(value) {
            self.out.write_all(b"J")?;
            return self.out.write_all(&short.to_le_bytes());
        }
        self.out.write_all(b"\x8a\x08")?;
        self.out.write_all(&value.to_le_bytes())
    }

    pub(crate) fn none(&mut self) -> io::Result<()> {
        self.out.write_all(b"N")
    }

    /// A function or class by name.
    pub(crate) fn global(&mut self, module: &str, name: &str) -> io::Result<()> {
        write!(self.out, "c{module}\n{name}\n")
    }

    /// A tuple of what `items` writes.
    pub(crate) fn tuple(&mut self, items: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.out.write_all(b"(")?;
        items(self)?;
        self.out.write_all(b"t")
    }

    /// A tuple of integers.
    pub(crate) fn integers(&mut self, values: impl IntoIterator<Item = usize>) -> io::Result<()> {
        self.tuple(|w| values.into_iter().try_for_each(|value| w.integer(value as i64)))
    }

    /// A dictionary of what `entries` writes: a key, a value, a key, …
    pub(crate) fn dict(&mut self, entries: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.out.write_all(b"}(")?;
        entries(self)?;
        self.out.write_all(b"u")
    }

    /// Calls the function before the tuple that was written last.
    pub(crate) fn reduce(&mut self) -> io::Result<()> {
        self.out.write_all(b"R")
    }

    /// Sets what was written last as the state of the object before it.
    pub(crate) fn build(&mut self) -> io::Result<()> {
        self.out.write_all(b"b")
    }

    /// Takes what was written last as a persistent id.
    pub(crate) fn persistent(&mut self) -> io::Result<()> {
        self.out.write_all(b"Q")
    }

    fn counted(&mut self, opcode: u8, bytes: &[u8]) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "more than 4 GiB in one value");
        let len = u32::try_from(bytes.len()).map_err(too_long)?;
        self.out.write_all(&[opcode])?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(bytes)
    }
}
