//! Where the strips or tiles of a TIFF file are.
//!
//! Writers leave the lengths out, write zeros, or lengths beyond the file. A chunk then goes on to the next one, or to
//! the end of the file; what is behind its pixels does not matter, because decompression ends with them.

use super::sample_layout::{Compression, SampleLayout};
use crate::image::decode::DecodeError;
use crate::image::decode::Format::Tiff;
use crate::image::decode::directory::{Directory, Tag, TagValues};

/// The places of all chunks, in the order of [`SampleLayout::chunks`].
pub(super) struct ChunkPlaces<'a> {
    directory: &'a Directory<'a>,
    file_bytes: u64,
    offsets: TagValues<'a>,
    lengths: Option<TagValues<'a>>,
    /// The offsets in ascending order, where lengths cannot be trusted.
    starts: Option<Vec<u64>>,
    /// The length of chunks that are not compressed.
    raw_bytes: Option<u64>,
    count: u64,
}

impl<'a> ChunkPlaces<'a> {
    /// How often the file may be read in sum: chunks may share bytes, as empty tiles do, but not so that a small file is
    /// read a thousand times.
    const MAX_READS: u64 = 4;

    /// Finds the chunks of a file of `file_bytes`.
    ///
    /// # Errors
    /// [`DecodeError::Corrupt`] if there are too few, or they are longer than the file in sum.
    pub(super) fn find(
        directory: &'a Directory<'a>,
        layout: &SampleLayout,
        file_bytes: u64,
    ) -> Result<Self, DecodeError> {
        let (offsets, lengths) = if layout.is_tiled {
            (Tag::TileOffsets, Tag::TileByteCounts)
        } else {
            (Tag::StripOffsets, Tag::StripByteCounts)
        };
        let count = layout.chunk_count();
        let offsets = directory.values(offsets).filter(|offsets| offsets.count >= count);
        let offsets = offsets.ok_or_else(|| Tiff.corrupt("there are too few strips or tiles in it"))?;
        let largest = layout.chunks().next().map_or(0, |chunk| layout.row_bytes(chunk.width) * chunk.height);
        let raw_bytes = (layout.compression == Compression::None).then_some(largest as u64);
        let lengths = directory.values(lengths);
        let mut places = Self { directory, file_bytes, offsets, lengths, starts: None, raw_bytes, count };
        if !places.are_trusted() || places.bytes_read() > Self::MAX_READS * file_bytes {
            let mut starts: Vec<u64> = offsets.iter().take(usize::try_from(count).unwrap_or(usize::MAX)).collect();
            starts.sort_unstable();
            places.starts = Some(starts);
        }
        if places.bytes_read() > Self::MAX_READS * file_bytes {
            return Err(Tiff.corrupt("its strips or tiles are longer than the file"));
        }
        Ok(places)
    }

    /// The bytes of the chunk at `index`; `None` if they are outside the file.
    pub(super) fn bytes(&self, index: u64) -> Option<&'a [u8]> {
        let offset = self.offsets.get(index)?;
        // The file's header is there: an offset of 0 marks a chunk that is not stored.
        if offset == 0 {
            return None;
        }
        self.directory.fields.slice(offset, self.length(index))
    }

    /// Returns whether every length is at least 1 and ends inside the file.
    fn are_trusted(&self) -> bool {
        let Some(lengths) = self.lengths.filter(|lengths| lengths.count >= self.count) else { return false };
        let mut places =
            self.offsets.iter().zip(lengths.iter()).take(usize::try_from(self.count).unwrap_or(usize::MAX));
        places.all(|(offset, length)| length > 0 && offset.saturating_add(length) <= self.file_bytes)
    }

    fn bytes_read(&self) -> u64 {
        (0..self.count).map(|index| self.length(index)).fold(0, u64::saturating_add)
    }

    fn length(&self, index: u64) -> u64 {
        let offset = self.offsets.get(index).unwrap_or(self.file_bytes);
        let to_end = self.file_bytes.saturating_sub(offset);
        // Pixels that are not compressed are as long as they are, whatever is stated.
        if let Some(raw_bytes) = self.raw_bytes {
            return raw_bytes.min(to_end);
        }
        let stated = self.lengths.and_then(|lengths| lengths.get(index)).filter(|&length| length > 0);
        let next = self.starts.as_ref().and_then(|starts| starts.get(starts.partition_point(|&start| start <= offset)));
        let to_next = next.map_or(to_end, |&next| next - offset);
        stated.map_or(to_next, |stated| stated.min(to_next)).min(to_end)
    }
}
