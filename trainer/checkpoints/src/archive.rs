//! Zip archives as PyTorch writes them: entries one after the other, stored as they are.
//!
//! Nothing is unpacked to disk and nothing is inflated, so an archive takes no more memory than
//! its directory. What a checkpoint never has is refused all the same, because two programs would
//! read it differently: compressed or encrypted entries, two of one name, entries that overlap,
//! names that lead out of a folder, a directory that disagrees with the entries.
//!
//! Source: PKWARE, APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::source::{ReadError, Source};

/// The first bytes of an archive.
pub(crate) const MAGIC: [u8; 4] = *b"PK\x03\x04";

const CENTRAL_HEADER: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_64: [u8; 4] = *b"PK\x06\x07";
const END_LEN: u64 = 22;
const LOCATOR_64_LEN: u64 = 20;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: u64 = 30;
/// Longest comment behind the end of the directory.
const MAX_COMMENT: u64 = 0xffff;
/// Largest directory that is read; a ResNet-101 with its optimiser takes a fiftieth.
const MAX_DIRECTORY: u64 = 16 << 20;
/// In fields of 16 and 32 bits: the value stands in a record of zip64.
const IN_ZIP64: u64 = 0xffff_ffff;
const ENCRYPTED: u16 = 1;

/// An archive that is not read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The directory at the end is not there.
    #[error("the zip archive has no directory at its end: it is cut off, or something was appended to it")]
    NoDirectory,
    /// The directory contradicts itself or the file.
    #[error("the zip archive's directory is damaged: {0}")]
    Directory(&'static str),
    /// An entry contradicts the directory.
    #[error("the zip archive's entry `{name}` {what}")]
    Entry {
        /// Its name.
        name: String,
        /// Description of the fault.
        what: &'static str,
    },
    /// An entry's content is not what was written.
    #[error("the zip archive's entry `{0}` is damaged: its CRC-32 is not the recorded one")]
    Checksum(String),
    /// An entry that should be there is not.
    #[error("the zip archive has no entry `{0}`")]
    Missing(String),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// The entries of an archive by name.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    entries: BTreeMap<String, Entry>,
}

/// Position of an entry's content.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) data: Range<u64>,
    /// CRC-32 of the content; zero where the writer did not compute it.
    crc32: u32,
}

/// Position and length of the directory, from the end of the archive.
struct Directory {
    at: u64,
    len: u64,
    count: u64,
}

impl Archive {
    /// Reads the directory and checks it against the entries.
    pub(crate) fn read(source: &Source) -> Result<Self, ArchiveError> {
        let directory = Directory::find(source)?;
        let bytes = directory.read(source)?;
        let mut archive = Self::default();
        let mut occupied = Vec::new();
        let mut rest = bytes.as_slice();
        for _ in 0..directory.count {
            let header = CentralHeader::take(&mut rest)?;
            let Some((name, entry)) = header.locate(source)? else { continue };
            occupied.push(header.local_at..entry.data.end);
            if entry.data.end > directory.at {
                return Err(fault(&name, "reaches into the directory"));
            }
            if archive.entries.insert(name.clone(), entry).is_some() {
                return Err(fault(&name, "is there twice"));
            }
        }
        if !rest.is_empty() {
            return Err(ArchiveError::Directory("it has more entries than it says"));
        }
        occupied.sort_unstable_by_key(|range: &Range<u64>| range.start);
        if occupied.windows(2).any(|pair| pair[0].end > pair[1].start) {
            return Err(ArchiveError::Directory("entries overlap"));
        }
        Ok(archive)
    }

    /// The names in the directory of an archive of whatever kind; its entries are not looked at.
    pub(crate) fn directory_names(source: &Source) -> Result<Vec<String>, ArchiveError> {
        let directory = Directory::find(source)?;
        let bytes = directory.read(source)?;
        let mut rest = bytes.as_slice();
        let name = |_| Ok(String::from_utf8_lossy(CentralHeader::take(&mut rest)?.name).into_owned());
        (0..directory.count).map(name).collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Entry, ArchiveError> {
        self.entries.get(name).ok_or_else(|| ArchiveError::Missing(name.to_owned()))
    }

    /// Compares an entry's content with its checksum, a block at a time.
    pub(crate) fn verify(&self, name: &str, source: &Source) -> Result<(), ArchiveError> {
        const BLOCK: usize = 1 << 20;
        let Entry { data, crc32 } = self.get(name)?;
        if *crc32 == 0 {
            return Ok(());
        }
        let mut found = crc32fast::Hasher::new();
        for at in data.clone().step_by(BLOCK) {
            found.update(&source.read(at, (data.end - at).min(BLOCK as u64))?);
        }
        if found.finalize() == *crc32 { Ok(()) } else { Err(ArchiveError::Checksum(name.to_owned())) }
    }
}

impl Directory {
    fn read(&self, source: &Source) -> Result<Vec<u8>, ArchiveError> {
        if self.len > MAX_DIRECTORY {
            return Err(ArchiveError::Directory("it is longer than that of any checkpoint"));
        }
        Ok(source.read(self.at, self.len)?)
    }

    fn find(source: &Source) -> Result<Self, ArchiveError> {
        let from = source.len().saturating_sub(END_LEN + MAX_COMMENT);
        let tail = source.read(from, source.len() - from)?;
        let is_end = |&at: &usize| {
            let comment = field::<2>(&tail, at + 20);
            tail[at..].starts_with(&END) && comment == Some((tail.len() - at) as u64 - END_LEN)
        };
        let last = tail.len().checked_sub(END_LEN as usize).ok_or(ArchiveError::NoDirectory)?;
        let at = (0..=last).rev().find(is_end).ok_or(ArchiveError::NoDirectory)?;
        let number =
            |offset, len| if len == 2 { field::<2>(&tail, at + offset) } else { field::<4>(&tail, at + offset) };
        let (Some(count), Some(len), Some(start)) = (number(10, 2), number(12, 4), number(16, 4)) else {
            return Err(ArchiveError::NoDirectory);
        };
        let end = from + at as u64;
        let (found, limit) = match Self::find_64(source, end)? {
            Some((found, end_64)) => (found, end_64),
            None => (Self { at: start, len, count }, end),
        };
        if found.at.checked_add(found.len) != Some(limit) {
            return Err(ArchiveError::Directory("it is not where the archive says"));
        }
        if found.count > found.len / CENTRAL_LEN as u64 {
            return Err(ArchiveError::Directory("it says that it has more entries than fit into it"));
        }
        Ok(found)
    }

    /// The record of zip64, if there is one, and where it begins.
    fn find_64(source: &Source, end: u64) -> Result<Option<(Self, u64)>, ArchiveError> {
        let Some(locator_at) = end.checked_sub(LOCATOR_64_LEN) else { return Ok(None) };
        let locator: [u8; LOCATOR_64_LEN as usize] = source.array(locator_at)?;
        if !locator.starts_with(&LOCATOR_64) {
            return Ok(None);
        }
        let wrong = ArchiveError::Directory("its zip64 record is not where it should be");
        let Some(at) = field::<8>(&locator, 8) else { return Err(wrong) };
        let record: [u8; 56] = source.array(at)?;
        let numbers = (field::<8>(&record, 32), field::<8>(&record, 40), field::<8>(&record, 48));
        match numbers {
            (Some(count), Some(len), Some(start)) if record.starts_with(&END_64) && at < locator_at => {
                Ok(Some((Self { at: start, len, count }, at)))
            }
            _ => Err(wrong),
        }
    }
}

/// An entry as the directory has it.
struct CentralHeader<'a> {
    flags: u64,
    method: u64,
    crc32: u32,
    stored_len: u64,
    len: u64,
    local_at: u64,
    name: &'a [u8],
}

impl<'a> CentralHeader<'a> {
    fn take(rest: &mut &'a [u8]) -> Result<Self, ArchiveError> {
        let damaged = || ArchiveError::Directory("an entry of it is not whole");
        let header =
            rest.get(..CENTRAL_LEN).filter(|header| header.starts_with(&CENTRAL_HEADER)).ok_or_else(damaged)?;
        let short = |at| field::<2>(header, at).ok_or_else(damaged);
        let long = |at| field::<4>(header, at).ok_or_else(damaged);
        let lengths = [CENTRAL_LEN, short(28)? as usize, short(30)? as usize, short(32)? as usize];
        let part = |count: usize| lengths[..count].iter().sum::<usize>();
        let name = rest.get(CENTRAL_LEN..part(2)).ok_or_else(damaged)?;
        let extra = rest.get(part(2)..part(3)).ok_or_else(damaged)?;
        let mut found = Self {
            flags: short(8)?,
            method: short(10)?,
            crc32: long(16)? as u32,
            stored_len: long(20)?,
            len: long(24)?,
            local_at: long(42)?,
            name,
        };
        found.widen(extra).ok_or_else(damaged)?;
        *rest = rest.get(part(4)..).ok_or_else(damaged)?;
        Ok(found)
    }

    /// Takes the values that did not fit from the extra field of zip64, in the standard's order.
    fn widen(&mut self, mut extra: &[u8]) -> Option<()> {
        let mut wide: &[u8] = &[];
        while let (Some(id), Some(len)) = (field::<2>(extra, 0), field::<2>(extra, 2)) {
            let content = extra.get(4..4 + len as usize)?;
            if id == 1 {
                wide = content;
            }
            extra = &extra[4 + len as usize..];
        }
        for value in [&mut self.len, &mut self.stored_len, &mut self.local_at] {
            if *value == IN_ZIP64 {
                *value = field::<8>(wide, 0)?;
                wide = &wide[8..];
            }
        }
        Some(())
    }

    /// The name and the place of the content; `None` of a folder.
    fn locate(&self, source: &Source) -> Result<Option<(String, Entry)>, ArchiveError> {
        let name = String::from_utf8_lossy(self.name).into_owned();
        if std::str::from_utf8(self.name).is_err() || !is_plain(&name) {
            return Err(fault(&name, "has a name that leads out of the archive"));
        }
        if self.flags & u64::from(ENCRYPTED) != 0 {
            return Err(fault(&name, "is encrypted"));
        }
        if self.method != 0 {
            return Err(fault(
                &name,
                "is compressed, which torch.save never does; unpack the archive and pack it with `zip -0 -r`",
            ));
        }
        if self.stored_len != self.len {
            return Err(fault(&name, "has two different lengths"));
        }
        let header: [u8; LOCAL_LEN as usize] = source.array(self.local_at)?;
        let (Some(name_len), Some(extra_len)) = (field::<2>(&header, 26), field::<2>(&header, 28)) else {
            return Err(fault(&name, "is not whole"));
        };
        let same = header.starts_with(&MAGIC) && name_len == self.name.len() as u64;
        if !same || source.read(self.local_at + LOCAL_LEN, name_len)? != self.name {
            return Err(fault(&name, "is not where the directory says"));
        }
        let start = self.local_at + LOCAL_LEN + name_len + extra_len;
        let data = source.check(start, self.len)?;
        if name.ends_with('/') && !data.is_empty() {
            return Err(fault(&name, "is a folder with content"));
        }
        Ok((!name.ends_with('/')).then_some((name, Entry { data, crc32: self.crc32 })))
    }
}

/// Returns whether a name stays below the folder that it would be unpacked to.
fn is_plain(name: &str) -> bool {
    let path = name.strip_suffix('/').unwrap_or(name);
    !name.contains(['\\', '\0', ':']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn fault(name: &str, what: &'static str) -> ArchiveError {
    ArchiveError::Entry { name: name.to_owned(), what }
}

/// A little-endian number of `N` bytes.
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut number = [0; 8];
    number[..N].copy_from_slice(bytes.get(at..at + N)?);
    Some(u64::from_le_bytes(number))
}

#[cfg(test)]
mod tests;
