//! Keys of features: the image's content and how its features are computed.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use densecl_inference::backend::LayerSet;

/// Version of the way from a file to the model's input. Programs that make other pixels of the same file have another:
/// 2 since large JPEGs are decoded at a fraction of their size.
const INPUT_VERSION: u32 = 2;

/// How features of an image are computed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Recipe {
    /// Name of the model.
    pub model: String,
    /// Version of the model.
    pub version: u32,
    /// SHA-256 of the model's file: a replaced file is another model.
    pub digest: [u8; 32],
    /// The layers, in their order.
    pub layers: LayerSet,
    /// Longer side that the image is resized to, in pixels.
    pub side_px: u32,
}

impl Recipe {
    /// Names of the layers, as a request writes them: joined by `+`.
    pub fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }
}

/// Everything that features depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FeatureKey {
    /// SHA-256 of the image's file.
    pub content: [u8; 32],
    /// How its features are computed.
    pub recipe: Arc<Recipe>,
}

impl FeatureKey {
    /// Key of the features of the image in `file`.
    pub fn from_file(file: &[u8], recipe: Arc<Recipe>) -> Self {
        Self { content: Sha256::digest(file).into(), recipe }
    }

    /// Hash of the key.
    pub fn id(&self) -> FeatureId {
        let Recipe { model, version, digest, layers, side_px } = &*self.recipe;
        let mut hash = Sha256::new();
        hash.update(INPUT_VERSION.to_le_bytes());
        hash.update(self.content);
        hash.update(digest);
        hash.update(version.to_le_bytes());
        hash.update(side_px.to_le_bytes());
        for name in [model].into_iter().chain(layers.names()) {
            // With its length, so that two different lists of names are never the same bytes.
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
        }
        let hash = hash.finalize();
        FeatureId(std::array::from_fn(|byte| hash[byte]))
    }
}

/// Hash of a [`FeatureKey`], 32 hexadecimal digits in the header `Densecl-Feature-Id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureId([u8; 16]);

/// Text that is not a feature id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a feature id has 32 hexadecimal digits in lower case")]
pub struct FeatureIdError;

impl fmt::Display for FeatureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl FromStr for FeatureId {
    type Err = FeatureIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_id = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_id).ok_or(FeatureIdError)?;
        Ok(Self(number.to_be_bytes()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn recipe() -> Recipe {
        let layers = LayerSet::new(["res4", "res5"]).unwrap();
        Recipe { model: "resnet18".to_owned(), version: 1, digest: [7; 32], layers, side_px: 64 }
    }

    #[test]
    fn a_change_of_anything_that_features_depend_on_changes_the_id() {
        let id = |file: &[u8], recipe: Recipe| FeatureKey::from_file(file, Arc::new(recipe)).id();
        let layers = |names: &[&str]| LayerSet::new(names.iter().copied()).unwrap();
        let all = [
            id(b"a", recipe()),
            id(b"b", recipe()),
            id(b"a", Recipe { model: "resnet1".to_owned(), ..recipe() }),
            id(b"a", Recipe { version: 8, ..recipe() }),
            id(b"a", Recipe { digest: [8; 32], ..recipe() }),
            id(b"a", Recipe { layers: layers(&["res5", "res4"]), ..recipe() }),
            id(b"a", Recipe { layers: layers(&["res4"]), ..recipe() }),
            id(b"a", Recipe { layers: layers(&["res4r", "es5"]), ..recipe() }),
            id(b"a", Recipe { side_px: 96, ..recipe() }),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(id(b"a", recipe()), all[0]);
    }

    #[test]
    fn an_id_is_read_back() {
        let id = FeatureKey::from_file(b"a", Arc::new(recipe())).id();
        assert_eq!(id.to_string().parse(), Ok(id));
        for wrong in ["", "abc", &"g".repeat(32), &"A".repeat(32), &"0".repeat(33), &format!("+{}", "0".repeat(31))] {
            assert_eq!(wrong.parse::<FeatureId>(), Err(FeatureIdError), "{wrong}");
        }
    }
}
