//! Zip archives as PyTorch writes them: stored entries whose content begins at multiples of 64.

use std::io::{self, Write};

/// `torch.load(…, mmap=True)` wants tensors aligned.
const ALIGNMENT: u64 = 64;
/// Identifier of the extra field that fills the gap, as PyTorch's has it.
const PADDING_ID: [u8; 2] = *b"FB";
const LOCAL_LEN: u64 = 30;

/// An archive under construction.
pub(crate) struct ArchiveWriter<W> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    count: u16,
}

impl<W: Write> ArchiveWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, at: 0, directory: Vec::new(), count: 0 }
    }

    /// Adds an entry.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let offset = small(self.at)?;
        let before = LOCAL_LEN + name.len() as u64 + 4;
        let padding = (self.at + before).next_multiple_of(ALIGNMENT) - (self.at + before);
        let extra_len = (4 + padding) as u16;
        // Version 2.0, names in UTF-8, stored; 1 January 1980; checksum and lengths; name's length.
        let mut fields = Vec::new();
        for field in [20_u16, 1 << 11, 0, 0, 0x21] {
            fields.extend(field.to_le_bytes());
        }
        fields.extend(crc32fast::hash(content).to_le_bytes());
        fields.extend(small(content.len() as u64)?.to_le_bytes().repeat(2));
        fields.extend((name.len() as u16).to_le_bytes());

        let mut local = b"PK\x03\x04".to_vec();
        local.extend(&fields);
        local.extend(extra_len.to_le_bytes());
        local.extend(name.as_bytes());
        local.extend(PADDING_ID);
        local.extend((padding as u16).to_le_bytes());
        local.resize(local.len() + padding as usize, b'Z');
        self.put(&local)?;
        self.put(content)?;

        self.directory.extend(b"PK\x01\x02\x14\x00");
        self.directory.extend(&fields);
        // No extra field or comment, first disk, no attributes.
        self.directory.extend([0; 12]);
        self.directory.extend(offset.to_le_bytes());
        self.directory.extend(name.as_bytes());
        self.count = self.count.checked_add(1).ok_or_else(too_large)?;
        Ok(())
    }

    /// Writes the directory.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let mut end = b"PK\x05\x06\x00\x00\x00\x00".to_vec();
        end.extend(self.count.to_le_bytes().repeat(2));
        end.extend(small(self.directory.len() as u64)?.to_le_bytes());
        end.extend(small(self.at)?.to_le_bytes());
        end.extend([0; 2]);
        let directory = std::mem::take(&mut self.directory);
        self.put(&directory)?;
        self.put(&end)?;
        Ok(self.out)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Without zip64, which no ResNet needs.
fn small(number: u64) -> io::Result<u32> {
    u32::try_from(number).ok().filter(|&number| number != u32::MAX).ok_or_else(too_large)
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "the archive would be larger than 4 GiB")
}
