//! From a trained network to an ONNX model with its manifest.
//!
//! The graph is built from the weights without libtorch; its outputs are then compared with
//! libtorch's, and a model that is not close enough is never written (`fidelity`).

mod calibration;
mod fidelity;
mod speed;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use densecl_models::graph::WeightStorage;
use densecl_models::repository::MODEL_FILE;
use densecl_models::resnet::{Architecture, BuiltGraph, GraphSpec, OutputStride, Weights, build};
use densecl_models::{Fidelity, Manifest, OnnxModel, int8};

pub use calibration::Calibration;
pub use speed::{Speed, SpeedTest};

use crate::augment::Normalization;
use crate::network::FeatureNetwork;
use crate::onnx_session::OnnxSession;
use crate::pretrained::{Pretrained, ReadOptions};

/// Default layer of requests, if the model has it.
const DEFAULT_LAYER: &str = "res4";

/// Storage of weights and arithmetic of convolutions.
#[derive(Clone, Debug, PartialEq)]
pub enum WeightFormat {
    /// Exact.
    Float32,
    /// Half the file; computed in float32.
    Float16,
    /// A quarter of the file; convolutions compute in integers, whose ranges are measured.
    Int8(Calibration),
}

impl fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Int8(_) => "int8",
        })
    }
}

/// Variant of a network as an ONNX model.
#[derive(Clone, Debug)]
pub struct ExportVariant {
    /// Storage of weights.
    pub weights: WeightFormat,
    /// Output stride of the backbone; strides beyond it become dilations.
    pub output_stride: OutputStride,
    /// Outputs of the model, which may include `global`; `None` for all that the weights allow.
    pub layers: Option<Vec<String>>,
}

/// Licence of weights that a run of this trainer made, unless another one is given.
const OWN_LICENCE: &str = "Apache-2.0";

/// Options of an export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Selection of weights from another tool's file.
    pub reading: ReadOptions,
    /// Weights, output stride and layers.
    pub variant: ExportVariant,
    /// The layer, or several joined by `+`, for requests that name none; `res4` by default, or the
    /// last layer of a model without it.
    pub default_layer: Option<String>,
    /// Side that images are resized to by default.
    pub default_side: u32,
    /// SPDX identifier of the weights' licence; `None` for Apache-2.0, if a run of this trainer made them.
    pub licence: Option<String>,
}

/// A model that has been written.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The file.
    pub path: PathBuf,
    /// Differences of its outputs from libtorch's.
    pub fidelity: Fidelity,
}

/// Writes a network to `out/model.onnx`, where `out` is `<repository>/<name>/<version>`, if its outputs
/// are close to libtorch's. `checkpoint` is any file or folder that [`Pretrained::read`] reads.
///
/// # Errors
/// If the checkpoint cannot be read, `out` names no model version, the licence of somebody else's weights is not given, a
/// layer does not exist, there are
/// no images to calibrate on, the model is not close enough to the network, or the file cannot be
/// written. Nothing is written then.
pub fn export(checkpoint: &Path, out: &Path, options: &ExportOptions) -> Result<Exported> {
    let (name, version) = name_and_version(out)?;
    let Pretrained { method, architecture, weights, training, is_own } =
        Pretrained::read_with(checkpoint, &options.reading)?;
    let licence = licence(options.licence.as_deref(), is_own)?;
    let BuiltGraph { graph, layers, global } = build_graph(architecture, &weights, &options.variant)?;
    let last = layers.last().context("--layers names no layer: `global` alone is not a map")?.name.clone();
    let has_default = layers.iter().any(|layer| layer.name == DEFAULT_LAYER);
    let default_layer = if has_default { DEFAULT_LAYER.to_owned() } else { last };
    let Normalization { mean, std } = Normalization::IMAGENET;
    let mut manifest = Manifest {
        name,
        version,
        method,
        architecture: architecture.to_string(),
        layers,
        global,
        default_layer: options.default_layer.clone().unwrap_or(default_layer),
        default_side: options.default_side,
        mean,
        std,
        training,
        fidelity: None,
        licence,
    };
    let network = FeatureNetwork::from_weights(architecture, &weights, options.variant.output_stride)?;
    drop(weights);
    let mut session = session(&OnnxModel::new(graph.clone(), manifest.clone())?.encode()?)?;
    let fidelity = fidelity::measure(&mut session, &network, &options.variant.weights, options.default_side)?;
    drop(session);
    manifest.fidelity = Some(fidelity.clone());
    let path = out.join(MODEL_FILE);
    let is_sound = |file: &Path| fidelity::check_file(file, &network, &options.variant.weights);
    OnnxModel::new(graph, manifest)?.save_if(&path, is_sound)?;
    Ok(Exported { path, fidelity })
}

/// The licence that the manifest states.
fn licence(given: Option<&str>, is_own: bool) -> Result<String> {
    match given.map(str::trim) {
        Some("") => bail!("--licence is empty: give an SPDX identifier, such as Apache-2.0 or LicenseRef-Proprietary"),
        Some(licence) => Ok(licence.to_owned()),
        None if is_own => Ok(OWN_LICENCE.to_owned()),
        None => bail!(
            "no run of this trainer made these weights: give the licence under which they were published, as an SPDX \
             identifier such as --licence CC-BY-NC-4.0, MIT, Apache-2.0 or LicenseRef-Proprietary"
        ),
    }
}

/// Builds the graph of a variant.
fn build_graph(architecture: Architecture, weights: &Weights, variant: &ExportVariant) -> Result<BuiltGraph> {
    let Normalization { mean, std } = Normalization::IMAGENET;
    let storage = match variant.weights {
        WeightFormat::Float32 | WeightFormat::Int8(_) => WeightStorage::Float32,
        WeightFormat::Float16 => WeightStorage::Float16,
    };
    let spec = GraphSpec { architecture, output_stride: variant.output_stride, mean, std, storage };
    let mut built = build(&spec, weights)?;
    if let Some(layers) = &variant.layers {
        built = built.keep(layers)?;
    }
    if let WeightFormat::Int8(calibration) = &variant.weights {
        let ranges = calibration.ranges(&built.graph).context("the calibration failed")?;
        built.graph = int8::quantize(&built.graph, &ranges)?;
    }
    Ok(built)
}

/// A session with as many threads as libtorch has.
fn session(model: &[u8]) -> Result<OnnxSession> {
    OnnxSession::from_bytes(model, threads())
}

fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1)
}

fn name_and_version(out: &Path) -> Result<(String, u32)> {
    let component =
        |path: Option<&Path>| path.and_then(|p| p.file_name()).and_then(|name| name.to_str()).map(str::to_owned);
    let expected = || format!("--out {}: expected <repository>/<name>/<version>", out.display());
    let version = component(Some(out)).with_context(expected)?;
    let version: u32 = version.parse().ok().filter(|&version| version > 0).with_context(expected)?;
    let name = component(out.parent()).with_context(expected)?;
    ensure!(!name.is_empty(), expected());
    Ok((name, version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_licence_of_somebody_else_s_weights_has_to_be_given() {
        assert_eq!(licence(None, true).unwrap(), "Apache-2.0");
        assert_eq!(licence(Some("MIT"), true).unwrap(), "MIT");
        assert_eq!(licence(Some(" CC-BY-NC-4.0 "), false).unwrap(), "CC-BY-NC-4.0");
        assert!(licence(None, false).unwrap_err().to_string().contains("--licence CC-BY-NC-4.0"));
        assert!(licence(Some(" "), true).is_err());
    }

    #[test]
    fn the_folder_names_model_and_version() {
        assert_eq!(name_and_version(Path::new("zoo/tiny/3")).unwrap(), ("tiny".to_owned(), 3));
        for wrong in ["tiny", "zoo/tiny/0", "zoo/tiny/v1", "3"] {
            assert!(name_and_version(Path::new(wrong)).is_err(), "{wrong}");
        }
    }
}
