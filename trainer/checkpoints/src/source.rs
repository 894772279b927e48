//! Bytes that are read by position, from a file or from memory.
//!
//! The length of every read is compared with the end of the file before memory is allocated, so no
//! declared size can take more memory than the file is long.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A file, or bytes in memory.
#[derive(Debug)]
pub(crate) struct Source {
    content: Content,
    len: u64,
}

#[derive(Debug)]
enum Content {
    File(File),
    Memory(Vec<u8>),
}

/// Bytes that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Something says that there are bytes where the file has ended.
    #[error("{needed} bytes are expected from byte {at} on, but the file ends at byte {end}: it is cut off or damaged")]
    PastEnd {
        /// First byte of what is read.
        at: u64,
        /// Number of bytes.
        needed: u64,
        /// End of the file, or of the part of it that is read.
        end: u64,
    },
    /// The operating system refused.
    #[error("reading at byte {at} failed")]
    Io {
        /// First byte of what is read.
        at: u64,
        /// The operating system's error.
        source: io::Error,
    },
}

impl Source {
    /// A regular file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self { content: Content::File(file), len: metadata.len() })
    }

    /// A file's bytes that are in memory.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len() as u64, content: Content::Memory(bytes) }
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` with the bytes from `at` on.
    pub(crate) fn fill(&self, at: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        let range = self.check(at, buffer.len() as u64)?;
        match &self.content {
            Content::Memory(bytes) => buffer.copy_from_slice(&bytes[range.start as usize..range.end as usize]),
            Content::File(file) => {
                file.read_exact_at(buffer, at).map_err(|source| ReadError::Io { at, source })?;
            }
        }
        Ok(())
    }

    /// The `len` bytes from `at` on.
    pub(crate) fn read(&self, at: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        self.check(at, len)?;
        let mut bytes = vec![0; len as usize];
        self.fill(at, &mut bytes)?;
        Ok(bytes)
    }

    /// `N` bytes from `at` on.
    pub(crate) fn array<const N: usize>(&self, at: u64) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        self.fill(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Checks that the bytes lie within the source.
    pub(crate) fn check(&self, at: u64, needed: u64) -> Result<Range<u64>, ReadError> {
        let end = at.checked_add(needed).filter(|&end| end <= self.len);
        end.map(|end| at..end).ok_or(ReadError::PastEnd { at, needed, end: self.len })
    }
}

/// Reads one byte after the other, a block of the source at a time.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    source: &'a Source,
    at: u64,
    end: u64,
    block: Vec<u8>,
    block_at: u64,
}

/// Bytes that are asked of the source at once.
const BLOCK: u64 = 1 << 16;

impl<'a> Cursor<'a> {
    /// Reads `range`, which lies within the source.
    pub(crate) fn new(source: &'a Source, range: Range<u64>) -> Self {
        Self { source, at: range.start, end: range.end.min(source.len()), block: Vec::new(), block_at: 0 }
    }

    /// Position in the file of what comes next.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> Result<u8, ReadError> {
        let at = self.at;
        self.skip(1)?;
        let inside = at >= self.block_at && at - self.block_at < self.block.len() as u64;
        if !inside {
            self.block = self.source.read(at, BLOCK.min(self.end - at))?;
            self.block_at = at;
        }
        Ok(self.block[(at - self.block_at) as usize])
    }

    /// The next `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReadError> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// Passes over `len` bytes without reading them; returns where they lie.
    pub(crate) fn skip(&mut self, len: u64) -> Result<Range<u64>, ReadError> {
        let at = self.at;
        let past_end = ReadError::PastEnd { at, needed: len, end: self.end };
        let end = at.checked_add(len).filter(|&end| end <= self.end).ok_or(past_end)?;
        self.at = end;
        Ok(at..end)
    }

    /// The next `len` bytes.
    pub(crate) fn bytes(&mut self, len: u64) -> Result<Vec<u8>, ReadError> {
        let range = self.skip(len)?;
        self.source.read(range.start, len)
    }

    /// Reads the bytes before the next newline, and the newline.
    pub(crate) fn line(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                byte => line.push(byte),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_past_the_end_is_refused_before_memory_is_taken() {
        let source = Source::from_bytes(vec![1, 2, 3]);
        assert_eq!(source.read(1, 2).unwrap(), [2, 3]);
        for (at, len) in [(0, 4), (4, 0), (3, u64::MAX), (u64::MAX, 1), (0, 1 << 60)] {
            assert!(matches!(source.read(at, len), Err(ReadError::PastEnd { .. })), "{at} {len}");
        }
    }

    #[test]
    fn a_cursor_stays_in_its_range_and_crosses_blocks() {
        let bytes: Vec<u8> = (0..BLOCK * 2 + 5).map(|i| (i % 251) as u8).collect();
        let source = Source::from_bytes(bytes.clone());
        let mut cursor = Cursor::new(&source, 3..BLOCK * 2);
        let read: Vec<u8> = std::iter::from_fn(|| cursor.byte().ok()).collect();
        assert_eq!(read, bytes[3..BLOCK as usize * 2]);
        let mut cursor = Cursor::new(&source, 0..10);
        assert_eq!(cursor.skip(4).unwrap(), 0..4);
        assert_eq!(cursor.array().unwrap(), [4, 5]);
        assert_eq!(cursor.bytes(4).unwrap(), [6, 7, 8, 9]);
        assert!(cursor.byte().is_err());
    }

    #[test]
    fn only_regular_files_are_read() {
        assert!(Source::open(Path::new("/dev/zero")).is_err());
        assert!(Source::open(Path::new("/")).is_err());
    }
}
