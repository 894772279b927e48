//! Encoding of features as bytes, for other processes, and decoding.
//!
//! ```text
//! "DCLF"  format: u16  length of the header: u32  header: JSON  values: f32…  CRC-32 of all before: u32
//! ```
//!
//! Numbers are little-endian. The decoder does not trust its input: it checks every size before it allocates memory, and
//! it accepts an entry only with the right checksum and the id that was asked for.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::features::{CachedFeatures, CachedMaps};
use super::key::{FeatureId, FeatureKey, Recipe};
use densecl_inference::backend::LayerSet;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::ImageSize;

/// Number of the format. It is a part of the keys in Redis, so processes with different formats never share an entry.
pub(super) const FORMAT: u16 = 1;

const MAGIC: [u8; 4] = *b"DCLF";
/// Magic, format, length of the header.
const PREFIX_BYTES: usize = 4 + 2 + 4;
const CHECKSUM_BYTES: usize = 4;
/// A recipe of a dozen layers with long names takes a few kilobytes.
const MAX_HEADER_BYTES: usize = 64 << 10;
const FLOAT_BYTES: usize = size_of::<f32>();

/// Reason why bytes are not a valid entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EntryError {
    #[error("it does not begin with the magic number and the format of an entry")]
    Prefix,
    #[error("its length does not match its header")]
    Length,
    #[error("its checksum is wrong")]
    Checksum,
    #[error("its header cannot be read")]
    Header,
    #[error("it is the entry of another id")]
    Id,
    #[error("it holds numbers that are not finite")]
    NotFinite,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    content: [u8; 32],
    model: String,
    version: u32,
    digest: [u8; 32],
    side_px: u32,
    width: u32,
    height: u32,
    layers: Vec<LayerHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LayerHeader {
    name: String,
    channels: usize,
    height: usize,
    width: usize,
}

/// Encodes an entry; `None` if another process could not use it: without layers, or with numbers that are not finite.
pub(super) fn encode(features: &CachedFeatures) -> Option<Vec<u8>> {
    let CachedMaps::Layers(layers) = &features.maps else { return None };
    let is_finite = |layer: &FeatureMap| layer.data().iter().all(|value| value.is_finite());
    if !layers.iter().all(is_finite) {
        return None;
    }
    let header = serde_json::to_vec(&Header::new(features, layers)).ok()?;
    let values: usize = layers.iter().map(|layer| layer.data().len()).sum();
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + header.len() + values * FLOAT_BYTES + CHECKSUM_BYTES);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(header.len()).ok()?.to_le_bytes());
    bytes.extend_from_slice(&header);
    for layer in layers {
        bytes.extend(layer.data().iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    Some(bytes)
}

/// Decodes the entry of `id`.
///
/// # Errors
/// [`EntryError`] if it is damaged, of another format, or another entry.
pub(super) fn decode(bytes: &[u8], id: FeatureId) -> Result<CachedFeatures, EntryError> {
    let (rest, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(EntryError::Prefix)?;
    let header = header_range(rest)?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*checksum) {
        return Err(EntryError::Checksum);
    }
    let end = header.end;
    let header: Header = serde_json::from_slice(&rest[header]).map_err(|_| EntryError::Header)?;
    let mut values = &rest[end..];
    let mut layers = Vec::new();
    for layer in &header.layers {
        layers.push(layer.take_from(&mut values)?);
    }
    if !values.is_empty() {
        return Err(EntryError::Length);
    }
    let features = header.into_features(layers)?;
    if features.id() == id { Ok(features) } else { Err(EntryError::Id) }
}

/// Range of the header in an entry without its checksum.
fn header_range(bytes: &[u8]) -> Result<Range<usize>, EntryError> {
    let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(EntryError::Prefix)?;
    let (format, rest) = rest.split_first_chunk::<2>().ok_or(EntryError::Prefix)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(EntryError::Prefix)?;
    if *magic != MAGIC || u16::from_le_bytes(*format) != FORMAT {
        return Err(EntryError::Prefix);
    }
    let length = u32::from_le_bytes(*length) as usize;
    if length > rest.len().min(MAX_HEADER_BYTES) {
        return Err(EntryError::Length);
    }
    Ok(PREFIX_BYTES..PREFIX_BYTES + length)
}

impl Header {
    fn new(features: &CachedFeatures, layers: &[FeatureMap]) -> Self {
        let FeatureKey { content, recipe } = &features.key;
        let layer = |(name, map): (&String, &FeatureMap)| LayerHeader {
            name: name.clone(),
            channels: map.channels(),
            height: map.grid().height,
            width: map.grid().width,
        };
        Self {
            content: *content,
            model: recipe.model.clone(),
            version: recipe.version,
            digest: recipe.digest,
            side_px: recipe.side_px,
            width: features.image.width,
            height: features.image.height,
            layers: recipe.layers.names().iter().zip(layers).map(layer).collect(),
        }
    }

    fn into_features(self, layers: Vec<FeatureMap>) -> Result<CachedFeatures, EntryError> {
        let Self { content, model, version, digest, side_px, width, height, layers: names } = self;
        let names = LayerSet::new(names.into_iter().map(|layer| layer.name)).ok_or(EntryError::Header)?;
        let recipe = Arc::new(Recipe { model, version, digest, layers: names, side_px });
        let (key, image) = (FeatureKey { content, recipe }, ImageSize { width, height });
        Ok(CachedFeatures { key, image, maps: CachedMaps::Layers(layers) })
    }
}

impl LayerHeader {
    /// Takes the layer's values from the front of `values`.
    fn take_from(&self, values: &mut &[u8]) -> Result<FeatureMap, EntryError> {
        let sizes = [self.channels, self.height, self.width, FLOAT_BYTES];
        let length = sizes.into_iter().try_fold(1_usize, usize::checked_mul);
        let length = length.filter(|&length| length <= values.len()).ok_or(EntryError::Length)?;
        let (own, rest) = values.split_at(length);
        *values = rest;
        let (numbers, _) = own.as_chunks::<FLOAT_BYTES>();
        let data: Vec<f32> = numbers.iter().map(|&number| f32::from_le_bytes(number)).collect();
        if !data.iter().all(|value| value.is_finite()) {
            return Err(EntryError::NotFinite);
        }
        FeatureMap::new(self.channels, self.height, self.width, data).map_err(|_| EntryError::Length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::features::tests::features;
    use super::*;

    /// Replaces the checksum by the right one.
    fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
        let end = bytes.len() - CHECKSUM_BYTES;
        bytes.truncate(end);
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    fn header_text(bytes: &[u8]) -> String {
        String::from_utf8(bytes[header_range(bytes).unwrap()].to_vec()).unwrap()
    }

    /// Replaces the header, and the checksum by the right one.
    fn with_header(bytes: &[u8], text: &str) -> Vec<u8> {
        let values = &bytes[header_range(bytes).unwrap().end..];
        let mut changed = bytes[..6].to_vec();
        changed.extend_from_slice(&(text.len() as u32).to_le_bytes());
        changed.extend_from_slice(text.as_bytes());
        changed.extend_from_slice(values);
        with_checksum(changed)
    }

    #[test]
    fn an_entry_is_read_back() {
        let features = features(b"a");
        let bytes = encode(&features).unwrap();
        assert_eq!(decode(&bytes, features.id()), Ok(features));
    }

    #[test]
    fn an_entry_is_accepted_only_under_its_own_id() {
        let bytes = encode(&features(b"a")).unwrap();
        assert_eq!(decode(&bytes, features(b"b").id()), Err(EntryError::Id));
        // A change of the header changes the id.
        for (from, to) in [("\"version\":1", "\"version\":2"), ("resnet18", "resnet50"), ("res4", "res3")] {
            let changed = with_header(&bytes, &header_text(&bytes).replace(from, to));
            assert_eq!(decode(&changed, features(b"a").id()), Err(EntryError::Id), "{from}");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_neither_written_nor_read() {
        let good = features(b"a");
        let map = FeatureMap::new(1, 1, 1, vec![f32::NAN]).unwrap();
        assert_eq!(encode(&CachedFeatures { maps: CachedMaps::Layers(vec![map]), ..good.clone() }), None);
        let mut bytes = encode(&good).unwrap();
        let end = bytes.len() - CHECKSUM_BYTES;
        bytes[end - FLOAT_BYTES..end].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert_eq!(decode(&with_checksum(bytes), good.id()), Err(EntryError::NotFinite));
    }

    #[test]
    fn sizes_that_overflow_or_exceed_the_values_are_refused() {
        let good = features(b"a");
        let bytes = encode(&good).unwrap();
        for channels in ["0", "4", "18446744073709551615", "4611686018427387904"] {
            let text = header_text(&bytes).replacen("\"channels\":3", &format!("\"channels\":{channels}"), 1);
            assert_eq!(decode(&with_header(&bytes, &text), good.id()), Err(EntryError::Length), "{channels}");
        }
        for text in ["{}", "", "[]", &header_text(&bytes).replace("res5", "res4")] {
            assert_eq!(decode(&with_header(&bytes, text), good.id()), Err(EntryError::Header), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_detected(place in 0_usize..1 << 16, bit in 0_u32..8) {
            let good = features(b"a");
            let mut bytes = encode(&good).unwrap();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            prop_assert!(decode(&bytes, good.id()).is_err());
        }

        #[test]
        fn a_truncated_or_extended_entry_is_refused(end in 0_usize..1 << 16, more: Vec<u8>) {
            let good = features(b"a");
            let bytes = encode(&good).unwrap();
            let end = end % bytes.len();
            prop_assert!(decode(&bytes[..end], good.id()).is_err());
            prop_assert!(more.is_empty() || decode(&[&bytes[..], &more].concat(), good.id()).is_err());
        }

        #[test]
        fn random_bytes_are_refused(bytes: Vec<u8>, rubbish in proptest::collection::vec(any::<u8>(), 14..200)) {
            let id = features(b"a").id();
            prop_assert!(decode(&bytes, id).is_err());
            let mut entry = rubbish;
            entry[..4].copy_from_slice(&MAGIC);
            entry[4..6].copy_from_slice(&FORMAT.to_le_bytes());
            prop_assert!(decode(&with_checksum(entry), id).is_err());
        }
    }
}
