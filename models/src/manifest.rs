//! The description of a model: the JSON document under `densecl.manifest` in the ONNX metadata.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fidelity::Fidelity;
use crate::geometry::{self, CELL_MULTIPLE_PX, GridSize, ImageSize, MAX_SIDE_PX};

/// The output that is one descriptor of a whole picture.
pub const GLOBAL: &str = "global";
/// Manifests take kilobytes; the configuration of a training run is the only part without a length.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const REQUIRED: [&str; 10] =
    ["name", "version", "method", "architecture", "layers", "default_layer", "default_side", "mean", "std", "licence"];
const REQUIRED_OF_LAYERS: [&str; 3] = ["name", "channels", "stride"];
const NAME_RULE: &str = "up to 128 letters, digits, `.`, `_` and `-`, beginning with a letter or digit";
const MAX_NAME_BYTES: usize = 128;
const MAX_TEXT_BYTES: usize = 256;
/// Networks have tens of blocks; more outputs than one for each are a mistake.
const MAX_LAYERS: usize = 64;
/// A map of a megapixel picture would take 256 GB at the greatest length: more is a mistake.
const CHANNELS: RangeInclusive<u32> = 1..=65_536;
/// Pictures are resized to multiples of this, so that cells tile them.
const MAX_STRIDE: u32 = CELL_MULTIPLE_PX;
const DEFAULT_SIDES: RangeInclusive<u32> = CELL_MULTIPLE_PX..=MAX_SIDE_PX;

/// Describes one version of a model.
///
/// It is a part of the ONNX file, so that a model and its description are never separated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Name in the repository, `[A-Za-z0-9][A-Za-z0-9._-]*`.
    pub name: String,
    /// A positive integer; the highest is served by default.
    pub version: u32,
    /// Origin of the weights: `densecl`, `moco-v2`, `random`, …
    pub method: String,
    /// The backbone, such as `resnet18`.
    pub architecture: String,
    /// Spatial outputs `[N, channels, H/stride, W/stride]`, finest first.
    pub layers: Vec<Layer>,
    /// Length of the `global` output `[N, D]`, if the model has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global: Option<u32>,
    /// Layer of requests that name none: one, or several joined by `+` (a hypercolumn).
    pub default_layer: String,
    /// Length in pixels that the longer side of an image is resized to by default.
    pub default_side: u32,
    /// Per-channel mean that the graph subtracts, of RGB in `[0, 1]`.
    pub mean: [f32; 3],
    /// Per-channel standard deviation that the graph divides by.
    pub std: [f32; 3],
    /// Training of the weights; absent for models from elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub training: Option<Training>,
    /// Differences between the outputs and the network's; absent for models from elsewhere.
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

impl Layer {
    /// The grid of its cells for a model's input of this size.
    pub fn grid(&self, input: ImageSize) -> GridSize {
        geometry::grid(input, self.stride)
    }
}

/// Origin of trained weights.
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
    #[error("the manifest is not JSON")]
    Malformed(#[from] serde_json::Error),
    /// It is longer than any manifest needs to be.
    #[error("the manifest is longer than {} KiB", MAX_MANIFEST_BYTES >> 10)]
    TooLong,
    /// Fields that every model needs are not there.
    #[error("the manifest lacks {fields}: docs/serving.md has an example of the smallest one")]
    Missing {
        /// All of them.
        fields: String,
    },
    /// A field is of another type.
    #[error("the manifest's `{field}` is not valid: {reason}")]
    Type {
        /// Path in the document.
        field: String,
        /// The deserializer's message.
        reason: String,
    },
    /// Not text at all.
    #[error("the manifest is not UTF-8 text")]
    NotText(#[source] std::str::Utf8Error),
    /// A field has a value that cannot be served.
    #[error("the manifest's `{field}` is not valid: {reason}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// Description of the fault.
        reason: String,
    },
}

impl Manifest {
    /// Key of the manifest in the ONNX `metadata_props`.
    pub const METADATA_KEY: &'static str = "densecl.manifest";

    /// Reads and checks a manifest. Unknown fields are ignored: newer trainers may write them.
    ///
    /// # Errors
    /// If the JSON is malformed, fields are missing (all of them are named), or one is out of range.
    pub fn from_json(json: &str) -> Result<Self, ManifestError> {
        if json.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(ManifestError::TooLong);
        }
        let document: Value = serde_json::from_str(json)?;
        let missing = missing_fields(&document)?;
        if !missing.is_empty() {
            return Err(ManifestError::Missing { fields: missing.join(", ") });
        }
        let manifest: Self = serde_path_to_error::deserialize(document).map_err(|error| ManifestError::Type {
            field: error.path().to_string(),
            reason: shortened(&error.into_inner().to_string()),
        })?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The layer called `name`.
    pub fn layer(&self, name: &str) -> Option<&Layer> {
        self.layers.iter().find(|layer| layer.name == name)
    }

    /// Checks the values of all fields.
    ///
    /// # Errors
    /// Names the first field that is out of range.
    pub fn check(&self) -> Result<(), ManifestError> {
        let field = |field, reason: String| Err(ManifestError::Field { field, reason });
        if !is_model_name(&self.name) {
            return field("name", format!("`{}` is not {NAME_RULE}", shortened(&self.name)));
        }
        if self.version == 0 {
            return field("version", "versions begin at 1".to_owned());
        }
        for (name, text) in [("method", &self.method), ("architecture", &self.architecture), ("licence", &self.licence)]
        {
            if text.is_empty() || text.len() > MAX_TEXT_BYTES || text.contains(char::is_control) {
                return field(name, format!("a line of text of at most {MAX_TEXT_BYTES} bytes is expected"));
            }
        }
        self.check_layers().or_else(|reason| field("layers", reason))?;
        if self.global.is_some_and(|length| !CHANNELS.contains(&length)) {
            return field("global", format!("from {} to {} numbers", CHANNELS.start(), CHANNELS.end()));
        }
        let default: Vec<&str> = self.default_layer.split('+').collect();
        let is_repeated = |i: usize| default[..i].contains(&default[i]);
        if default.len() > self.layers.len()
            || default.iter().any(|name| self.layer(name).is_none())
            || (0..default.len()).any(is_repeated)
        {
            let reason = "it is not one of the layers, nor several different ones joined by `+`";
            return field("default_layer", reason.to_owned());
        }
        if !DEFAULT_SIDES.contains(&self.default_side) {
            return field("default_side", format!("from {} to {} pixels", DEFAULT_SIDES.start(), DEFAULT_SIDES.end()));
        }
        if !self.mean.iter().all(|mean| mean.is_finite()) {
            return field("mean", "three numbers are expected".to_owned());
        }
        if !self.std.iter().all(|&std| std > 0.0 && std.is_finite()) {
            return field("std", "three positive numbers are expected".to_owned());
        }
        Ok(())
    }

    fn check_layers(&self) -> Result<(), String> {
        if self.layers.is_empty() || self.layers.len() > MAX_LAYERS {
            return Err(format!("a model has from 1 to {MAX_LAYERS} layers"));
        }
        for (index, Layer { name, channels, stride }) in self.layers.iter().enumerate() {
            if !is_model_name(name) {
                return Err(format!("`{}` is not {NAME_RULE}: rename the graph's output", shortened(name)));
            }
            if name == GLOBAL || self.layers[..index].iter().any(|earlier| earlier.name == *name) {
                return Err(format!("`{name}` is taken: a name stands for one output"));
            }
            if !CHANNELS.contains(channels) {
                let (least, most) = (CHANNELS.start(), CHANNELS.end());
                return Err(format!("`{name}` has {channels} channels; from {least} to {most} are served"));
            }
            if !stride.is_power_of_two() || *stride > MAX_STRIDE {
                return Err(format!(
                    "`{name}` has stride {stride}; powers of two up to {MAX_STRIDE} are served, because pictures come \
                     in multiples of {MAX_STRIDE} pixels"
                ));
            }
        }
        Ok(())
    }
}

/// The fields without a default that `document` lacks, in the order in which they are documented.
fn missing_fields(document: &Value) -> Result<Vec<String>, ManifestError> {
    let Value::Object(fields) = document else {
        let found = ManifestError::Type { field: ".".to_owned(), reason: "an object is expected".to_owned() };
        return Err(found);
    };
    let is_missing = |fields: &Map<String, Value>, name: &str| fields.get(name).is_none_or(Value::is_null);
    let mut missing: Vec<String> =
        REQUIRED.iter().filter(|name| is_missing(fields, name)).map(|name| format!("`{name}`")).collect();
    let layers = fields.get("layers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    for (index, layer) in layers.iter().take(MAX_LAYERS).enumerate() {
        let Value::Object(fields) = layer else { continue };
        let of_layer = REQUIRED_OF_LAYERS.iter().filter(|name| is_missing(fields, name));
        missing.extend(of_layer.map(|name| format!("`layers[{index}].{name}`")));
    }
    Ok(missing)
}

/// Returns whether `name` can be a folder of the repository, a segment of a URL, and one of several joined by `+`.
pub(crate) fn is_model_name(name: &str) -> bool {
    name.len() <= MAX_NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// Text from the file, no longer than a message should have it.
fn shortened(text: &str) -> String {
    const MOST: usize = 200;
    let printable = text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c });
    if text.chars().count() <= MOST { printable.collect() } else { printable.take(MOST).chain(['…']).collect() }
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
        let broken: [(&str, Damage); 17] = [
            ("name", |m| m.name = "../etc".into()),
            ("name", |m| m.name = "x".repeat(129)),
            ("version", |m| m.version = 0),
            ("method", |m| m.method = String::new()),
            ("licence", |m| m.licence = "MIT\nand more".into()),
            ("layers", |m| m.layers.clear()),
            ("layers", |m| m.layers[0].channels = 0),
            ("layers", |m| m.layers[0].stride = 12),
            ("layers", |m| m.layers[0].stride = 64),
            ("layers", |m| m.layers[0].name = "a+b".into()),
            ("layers", |m| m.layers[0].name = "global".into()),
            ("layers", |m| m.layers.push(m.layers[0].clone())),
            ("global", |m| m.global = Some(0)),
            ("default_layer", |m| m.default_layer = "res9".into()),
            ("default_side", |m| m.default_side = 0),
            ("mean", |m| m.mean[2] = f32::NAN),
            ("std", |m| m.std[1] = 0.0),
        ];
        for (field, damage) in broken {
            let mut manifest = manifest();
            damage(&mut manifest);
            let message = manifest.check().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }

    #[test]
    fn all_that_is_missing_is_named_at_once() {
        let json =
            r#"{"name": "x", "version": null, "layers": [{"name": "a", "channels": 4, "stride": 8}, {"name": "b"}]}"#;
        let message = Manifest::from_json(json).unwrap_err().to_string();
        assert_eq!(
            message,
            "the manifest lacks `version`, `method`, `architecture`, `default_layer`, `default_side`, `mean`, `std`, \
             `licence`, `layers[1].channels`, `layers[1].stride`: docs/serving.md has an example of the smallest one"
        );
    }

    #[test]
    fn what_is_of_another_type_is_named_by_its_place() {
        let mut document = serde_json::to_value(manifest()).unwrap();
        document["layers"][0]["stride"] = "32".into();
        let message = Manifest::from_json(&document.to_string()).unwrap_err().to_string();
        assert!(message.contains("`layers[0].stride`"), "{message}");
        for (json, expected) in [("[]", "an object is expected"), ("{", "not JSON"), ("7", "an object is expected")] {
            let message = Manifest::from_json(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
        let long = format!("\"{}\"", "x".repeat(1 << 20));
        assert!(Manifest::from_json(&long).unwrap_err().to_string().contains("longer than 1024 KiB"));
    }

    #[test]
    fn fields_of_the_future_are_passed_over() {
        let mut document = serde_json::to_value(manifest()).unwrap();
        document["future"] = serde_json::json!({"a": [1, 2]});
        document["layers"][0]["future"] = true.into();
        assert_eq!(Manifest::from_json(&document.to_string()).unwrap(), manifest());
    }
}
