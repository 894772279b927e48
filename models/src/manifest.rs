//! What a model says of itself: the JSON document under `densecl.manifest` in the ONNX metadata.

use serde::{Deserialize, Serialize};

use crate::fidelity::Fidelity;

/// Describes one version of a model.
///
/// It travels inside the ONNX file, so that a model cannot be separated from what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name in the repository, `[A-Za-z0-9][A-Za-z0-9._-]*`.
    pub name: String,
    /// A positive integer; the highest is served by default.
    pub version: u32,
    /// How the weights came about: `densecl`, `moco-v2`, `random`, …
    pub method: String,
    /// The backbone, such as `resnet18`.
    pub architecture: String,
    /// Spatial outputs `[N, channels, H/stride, W/stride]`, finest first.
    pub layers: Vec<Layer>,
    /// Length of the `global` output `[N, D]`, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<u32>,
    /// What answers a request that names no layer: one, or several joined by `+` (a hypercolumn).
    pub default_layer: String,
    /// Length in pixels that the longer side of an image is resized to by default.
    pub default_side: u32,
    /// Per-channel mean that the graph subtracts, of RGB in `[0, 1]`.
    pub mean: [f32; 3],
    /// Per-channel standard deviation that the graph divides by.
    pub std: [f32; 3],
    /// How the weights were trained; absent for models from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// How close the outputs are to the network's; absent for models from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fidelity: Option<Fidelity>,
    /// SPDX identifier of the weights' licence.
    pub licence: String,
}

/// A spatial output of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Name of the graph output: `res2` … `res5`, `dense`.
    pub name: String,
    /// Length of a descriptor.
    pub channels: u32,
    /// Input pixels per cell, along x and along y.
    pub stride: u32,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The images: `synthetic`, or the name of a data set.
    pub data: String,
    /// Optimiser steps taken.
    pub steps: u64,
    /// Seed of everything random.
    pub seed: u64,
    /// Revision of the trainer's source.
    pub commit: String,
    /// The resolved configuration, as the trainer's TOML would read it.
    pub config: serde_json::Value,
}

/// A manifest that contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not a JSON document of the manifest's form.
    #[error("the manifest is not valid: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A field has a value that cannot be served.
    #[error("the manifest's `{field}` is not valid: {reason}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

impl Manifest {
    /// Key of the manifest in the ONNX `metadata_props`.
    pub const METADATA_KEY: &'static str = "densecl.manifest";

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// If the JSON is malformed or a field is out of range.
    pub fn from_json(json: &str) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_str(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The layer called `name`.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn check(&self) -> Result<(), ManifestError> {
        let field = |field, reason: &str| Err(ManifestError::Field { field, reason: reason.to_owned() });
        if !is_model_name(&self.name) {
            return field("name", "letters, digits, `.`, `_` and `-`, beginning with a letter or digit");
        }
        if self.version == 0 {
            return field("version", "versions begin at 1");
        }
        if self.layers.is_empty() {
            return field("layers", "a model has at least one layer");
        }
        if self.layers.iter().any(|layer| layer.channels == 0 || layer.stride == 0) {
            return field("layers", "channels and stride are positive");
        }
        let default: Vec<&str> = self.default_layer.split('+').collect();
        let is_repeated = |i: usize| default[..i].contains(&default[i]);
        if default.iter().any(|name| self.layer(name).is_none()) || (0..default.len()).any(is_repeated) {
            return field("default_layer", "it is not one of the layers, nor several different ones joined by `+`");
        }
        if self.default_side < 32 {
            return field("default_side", "at least 32 pixels");
        }
        if self.std.iter().any(|&std| !(std > 0.0 && std.is_finite())) {
            return field("std", "three positive numbers");
        }
        Ok(())
    }
}

/// Whether `name` can be a folder of the repository and a segment of a URL.
pub(crate) fn is_model_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn manifest() -> Manifest {
        Manifest {
            name: "tiny".into(),
            version: 1,
            method: "random".into(),
            architecture: "resnet18".into(),
            layers: vec![Layer { name: "res5".into(), channels: 32, stride: 32 }],
            global: Some(16),
            default_layer: "res5".into(),
            default_side: 224,
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
            training: None,
            fidelity: None,
            licence: "Apache-2.0".into(),
        }
    }

    #[test]
    fn survives_json() {
        let json = serde_json::to_string(&manifest()).unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest());
    }

    #[test]
    fn the_default_may_be_a_hypercolumn() {
        let mut manifest = manifest();
        manifest.layers.push(Layer { name: "res4".into(), channels: 16, stride: 16 });
        manifest.default_layer = "res4+res5".into();
        manifest.check().unwrap();
        for wrong in ["res4+", "res4+res4", ""] {
            manifest.default_layer = wrong.into();
            assert!(manifest.check().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        type Damage = fn(&mut Manifest);
        let broken: [(&str, Damage); 5] = [
            ("name", |m| m.name = "../etc".into()),
            ("version", |m| m.version = 0),
            ("default_layer", |m| m.default_layer = "res9".into()),
            ("default_side", |m| m.default_side = 0),
            ("std", |m| m.std[1] = 0.0),
        ];
        for (field, damage) in broken {
            let mut manifest = manifest();
            damage(&mut manifest);
            let message = manifest.check().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }
}
