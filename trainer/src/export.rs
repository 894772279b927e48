//! From a checkpoint to an ONNX model with its manifest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use densecl_models::graph::WeightStorage;
use densecl_models::repository::MODEL_FILE;
use densecl_models::resnet::{GraphSpec, build};
use densecl_models::{Manifest, OnnxModel};

use crate::augment::Normalization;
use crate::pretrained::Pretrained;

/// What an export can choose.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// How weights are stored.
    pub storage: WeightStorage,
    /// The layer, or several joined by `+`, for requests that name none; `res4` by default.
    pub default_layer: Option<String>,
    /// Side that images are resized to by default.
    pub default_side: u32,
    /// SPDX identifier of the weights' licence.
    pub licence: String,
}

/// Writes the query encoder of a checkpoint, or of a run's newest, to `out/model.onnx`, where
/// `out` is `<repository>/<name>/<version>`. Returns the file's path.
///
/// # Errors
/// If the checkpoint cannot be read, `out` names no model version, or the file cannot be written.
pub fn export(checkpoint: &Path, out: &Path, options: &ExportOptions) -> Result<PathBuf> {
    let (name, version) = name_and_version(out)?;
    let Pretrained { method, architecture, weights, training } = Pretrained::read(checkpoint)?;
    let Normalization { mean, std } = Normalization::IMAGENET;
    let built = build(&GraphSpec { architecture, mean, std, storage: options.storage }, &weights)?;
    let manifest = Manifest {
        name,
        version,
        method,
        architecture: architecture.to_string(),
        layers: built.layers,
        global: built.global,
        default_layer: options.default_layer.clone().unwrap_or_else(|| "res4".to_owned()),
        default_side: options.default_side,
        mean,
        std,
        training,
        licence: options.licence.clone(),
    };
    let path = out.join(MODEL_FILE);
    OnnxModel::new(built.graph, manifest)?.save(&path)?;
    Ok(path)
}

fn name_and_version(out: &Path) -> Result<(String, u32)> {
    let part = |path: Option<&Path>| path.and_then(|p| p.file_name()).and_then(|name| name.to_str()).map(str::to_owned);
    let expected = || format!("--out {}: expected <repository>/<name>/<version>", out.display());
    let version = part(Some(out)).with_context(expected)?;
    let version: u32 = version.parse().ok().filter(|&version| version > 0).with_context(expected)?;
    let name = part(out.parent()).with_context(expected)?;
    ensure!(!name.is_empty(), expected());
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_names_model_and_version() {
        assert_eq!(name_and_version(Path::new("zoo/tiny/3")).unwrap(), ("tiny".to_owned(), 3));
        for wrong in ["tiny", "zoo/tiny/0", "zoo/tiny/v1", "3"] {
            assert!(name_and_version(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
