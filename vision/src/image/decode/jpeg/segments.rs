//! Segments of a JPEG file.

use memchr::memchr;

use super::marker;
use crate::image::decode::fields::Fields;

/// Iterator over the segments of a JPEG file, as marker and payload.
///
/// Bytes that belong to no segment are skipped: entropy-coded data, restart markers, fill bytes, stray bytes. It takes
/// time in proportion to the bytes it passes, whatever they are, and ends once it has skipped more of them than its
/// limit. Payloads are not examined and do not count.
pub(super) struct Segments<'a> {
    bytes: &'a [u8],
    position: usize,
    skipped_bytes: usize,
    max_skipped_bytes: usize,
}

impl<'a> Segments<'a> {
    /// All segments of a file.
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self::with_limit(bytes, usize::MAX)
    }

    /// The segments before more than `max_skipped_bytes` have been skipped, in sum.
    pub(super) const fn with_limit(bytes: &'a [u8], max_skipped_bytes: usize) -> Self {
        Self { bytes, position: 0, skipped_bytes: 0, max_skipped_bytes }
    }

    /// Where the segment that was found last ends.
    pub(super) const fn end(&self) -> usize {
        self.position
    }

    /// The bytes behind the segment that was found last. Behind the start of a scan they are its data.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.position..).unwrap_or_default()
    }

    /// Leaves out `bytes` of the rest, which were read as the data of a scan.
    pub(super) const fn pass(&mut self, bytes: usize) {
        self.position += bytes;
    }

    /// Returns whether more bytes were skipped than the limit allows.
    pub(super) const fn limit_was_exceeded(&self) -> bool {
        self.skipped_bytes > self.max_skipped_bytes
    }

    fn skip(&mut self, bytes: usize) {
        self.position += bytes;
        self.skipped_bytes += bytes;
    }
}

impl<'a> Iterator for Segments<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.limit_was_exceeded() {
            let rest = self.bytes.get(self.position..).filter(|rest| !rest.is_empty())?;
            // One byte more than may be skipped is enough to exceed the limit.
            let budget = (self.max_skipped_bytes - self.skipped_bytes).saturating_add(1);
            let searched = &rest[..rest.len().min(budget)];
            let Some(start) = memchr(0xFF, searched) else {
                self.skip(searched.len());
                continue;
            };
            // Any number of fill bytes may stand before a marker; the last 0xFF is the marker's own.
            self.skip(start + fill_bytes(&searched[start..]) - 1);
            match *self.bytes.get(self.position + 1)? {
                // The fill bytes continue beyond what was searched.
                0xFF => self.skip(1),
                // Stuffing, restart markers and others that stand alone.
                0x00 | 0x01 | 0xD0..=marker::START_OF_IMAGE => self.skip(2),
                marker::END_OF_IMAGE => {
                    self.position = self.bytes.len();
                    return Some((marker::END_OF_IMAGE, &[]));
                }
                marker => {
                    // The length counts its own two bytes.
                    let length = Fields::big_endian(self.bytes).u16(self.position as u64 + 2)?;
                    let payload = self.position + 4;
                    self.position += 2 + usize::from(length);
                    return Some((marker, self.bytes.get(payload..self.position)?));
                }
            }
        }
        None
    }
}

/// Number of bytes 0xFF that `bytes` begin with, compared sixteen at a time.
fn fill_bytes(bytes: &[u8]) -> usize {
    let (blocks, _) = bytes.as_chunks::<16>();
    let whole = blocks.iter().take_while(|block| u128::from_ne_bytes(**block) == u128::MAX).count() * 16;
    whole + bytes[whole..].iter().take_while(|&&byte| byte == 0xFF).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn markers(segments: Segments<'_>) -> Vec<(u8, Vec<u8>)> {
        segments.map(|(marker, payload)| (marker, payload.to_vec())).collect()
    }

    /// Reads byte by byte, without any limit.
    fn markers_byte_by_byte(bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let (mut found, mut position) = (Vec::new(), 0);
        while position + 1 < bytes.len() {
            match (bytes[position], bytes[position + 1]) {
                (0xFF, 0x00 | 0x01 | 0xD0..=0xD8) => position += 2,
                (0xFF, 0xD9) => {
                    found.push((0xD9, Vec::new()));
                    break;
                }
                (0xFF, marker) if marker != 0xFF => {
                    let Some(&[high, low]) = bytes.get(position + 2..position + 4) else { break };
                    let end = position + 2 + usize::from(u16::from_be_bytes([high, low]));
                    let Some(payload) = bytes.get(position + 4..end) else { break };
                    found.push((marker, payload.to_vec()));
                    position = end;
                }
                _ => position += 1,
            }
        }
        found
    }

    proptest! {
        #[test]
        fn segments_are_those_found_byte_by_byte(
            pieces in prop::collection::vec(
                (prop::sample::select(vec![0xFF_u8, 0x00, 0xD3, 0xDA, 0xE1, 0x01, 0x02, 0x05, 0xD9]), 1_usize..40),
                0..40,
            ),
        ) {
            let bytes: Vec<u8> = pieces.iter().flat_map(|&(byte, count)| vec![byte; count]).collect();
            prop_assert_eq!(markers(Segments::new(&bytes)), markers_byte_by_byte(&bytes));
        }

        #[test]
        fn a_limit_ends_the_search_and_changes_nothing_before(skipped in 0_usize..100, limit in 0_usize..100, byte: u8) {
            let mut bytes = vec![if byte == 0xFF { 0xFF } else { 0x07 }; skipped];
            bytes.extend([0xFF, 0xE1, 0, 3, 9]);
            let mut segments = Segments::with_limit(&bytes, limit);
            prop_assert_eq!(segments.next(), (skipped <= limit).then_some((0xE1, &[9][..])));
            prop_assert_eq!(segments.limit_was_exceeded(), skipped > limit);
            prop_assert!(segments.skipped_bytes <= limit + 1);
        }
    }

    #[test]
    fn fill_bytes_are_counted_across_blocks() {
        for count in [0, 1, 15, 16, 17, 31, 32, 100] {
            let bytes = [vec![0xFF; count], vec![0xFE], vec![0xFF; 20]].concat();
            assert_eq!(fill_bytes(&bytes), count);
            assert_eq!(fill_bytes(&vec![0xFF; count]), count);
        }
    }
}
