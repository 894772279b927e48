//! Chunks of a PNG file.

use crate::image::decode::fields::Fields;

/// Begins every file.
pub(in crate::image) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Length, type and checksum of a chunk.
const OVERHEAD: u64 = 12;
/// Most chunks that are looked at. Encoders write a chunk for every 8 KiB or more of pixels.
const MAX_CHUNKS: usize = 16_384;

/// A chunk, as far as the file goes.
#[derive(Clone, Copy)]
pub(super) struct Chunk<'a> {
    pub(super) kind: [u8; 4],
    /// `None` if the file ends before its values do.
    pub(super) values: Option<&'a [u8]>,
    checksum: Option<u32>,
}

impl Chunk<'_> {
    /// Returns whether the checksum is that of type and values.
    pub(super) fn has_valid_checksum(&self) -> bool {
        let mut checksum = flate2::Crc::new();
        checksum.update(&self.kind);
        checksum.update(self.values.unwrap_or_default());
        self.checksum == Some(checksum.sum())
    }
}

/// The first chunks of a file, 16,384 at most.
pub(super) fn chunks(bytes: &[u8]) -> impl Iterator<Item = Chunk<'_>> {
    let fields = Fields::big_endian(bytes);
    let mut position = SIGNATURE.len() as u64;
    let next = move || {
        let length = u64::from(fields.u32(position)?);
        let kind = fields.slice(position + 4, 4)?.try_into().ok()?;
        let chunk =
            Chunk { kind, values: fields.slice(position + 8, length), checksum: fields.u32(position + 8 + length) };
        position += OVERHEAD + length;
        Some(chunk)
    };
    std::iter::from_fn(next).take(MAX_CHUNKS)
}
