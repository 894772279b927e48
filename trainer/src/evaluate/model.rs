//! The networks that are evaluated: trained ones, ONNX models, and random weights beside them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use densecl_models::resnet::{Architecture, OutputStride, Weights};
use densecl_models::{OnnxModel, Precision};
use tch::{Device, Kind, Tensor};

use crate::augment::Normalization;
use crate::network::{Backbone, BatchPart, Encoder, EncoderSpec, Statistics};
use crate::onnx_session::OnnxSession;
use crate::pretrained::{Pretrained, ReadOptions};

/// The backbone of random weights if no other model determines it.
const DEFAULT_ARCHITECTURE: Architecture = Architecture::ResNet50;

/// Channels of the standard stem.
const STANDARD_STEM: i64 = 64;

/// The layers of a backbone, by stage.
const LAYERS: [&str; 4] = ["res2", "res3", "res4", "res5"];

/// A model as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// `random` or `random:ARCHITECTURE`: weights as training begins with, new ones for each seed.
    Random(Option<Architecture>),
    /// A file or folder.
    File(PathBuf),
}

impl FromStr for ModelSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.strip_prefix("random") {
            Some("") => Self::Random(None),
            Some(rest) if rest.starts_with(':') => Self::Random(Some(rest[1..].parse()?)),
            _ => Self::File(text.into()),
        })
    }
}

impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(None) => f.write_str("random"),
            Self::Random(Some(architecture)) => write!(f, "random:{architecture}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A model to evaluate.
#[derive(Debug)]
pub struct Model {
    /// Its name on the command line.
    pub name: String,
    /// Origin of its weights.
    pub method: String,
    source: LoadedModel,
}

#[derive(Debug)]
enum LoadedModel {
    Trained(Box<Pretrained>),
    Onnx(Box<OnnxModel>),
    Random(NetworkSize),
}

/// Architecture and width of a ResNet.
#[derive(Clone, Copy, Debug)]
struct NetworkSize {
    architecture: Architecture,
    stem_width: i64,
}

/// Output stride and device of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Pixels of the image to a cell of `res5`. An ONNX model has its own.
    pub output_stride: OutputStride,
    /// Device of libtorch.
    pub device: Device,
}

impl Model {
    /// Reads the models, of other tools' files what `options` say. Random weights of no stated architecture are as large as the first model
    /// that is not random.
    ///
    /// # Errors
    /// If a file is no network.
    pub fn open_all(sources: &[ModelSource], options: &ReadOptions) -> Result<Vec<Self>> {
        let mut models = Vec::with_capacity(sources.len());
        for source in sources {
            models.push(match source {
                ModelSource::File(path) => Some(Self::open(path, options)?),
                ModelSource::Random(_) => None,
            });
        }
        let like = models.iter().flatten().next().map(Self::size).transpose()?;
        let complete = models.into_iter().zip(sources).map(|(model, source)| {
            model.unwrap_or_else(|| {
                let standard = |architecture| NetworkSize { architecture, stem_width: STANDARD_STEM };
                let size = match source {
                    ModelSource::Random(Some(architecture)) => standard(*architecture),
                    _ => like.unwrap_or(standard(DEFAULT_ARCHITECTURE)),
                };
                Self { name: source.to_string(), method: "random".to_owned(), source: LoadedModel::Random(size) }
            })
        });
        Ok(complete.collect())
    }

    fn open(path: &Path, options: &ReadOptions) -> Result<Self> {
        let name = path.display().to_string();
        let is_onnx = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"));
        Ok(if is_onnx {
            let model = OnnxModel::open(path).with_context(|| format!("cannot read the model {name}"))?;
            Self { name, method: model.manifest().method.clone(), source: LoadedModel::Onnx(Box::new(model)) }
        } else {
            let pretrained =
                Pretrained::read_with(path, options).with_context(|| format!("cannot read the model {name}"))?;
            Self { name, method: pretrained.method.clone(), source: LoadedModel::Trained(Box::new(pretrained)) }
        })
    }

    /// The backbone's name.
    pub fn architecture(&self) -> String {
        match &self.source {
            LoadedModel::Trained(pretrained) => pretrained.architecture.to_string(),
            LoadedModel::Onnx(model) => model.manifest().architecture.clone(),
            LoadedModel::Random(size) => size.architecture.to_string(),
        }
    }

    /// Returns `true` if every seed has its own weights.
    pub fn is_random(&self) -> bool {
        matches!(self.source, LoadedModel::Random(_))
    }

    fn size(&self) -> Result<NetworkSize> {
        match &self.source {
            LoadedModel::Random(size) => Ok(*size),
            LoadedModel::Trained(pretrained) => {
                let stem = pretrained.weights.get("conv1.weight").context("the weights lack `conv1.weight`")?;
                Ok(NetworkSize { architecture: pretrained.architecture, stem_width: stem.dims[0] as i64 })
            }
            LoadedModel::Onnx(model) => {
                let manifest = model.manifest();
                let architecture: Architecture = manifest.architecture.parse().map_err(anyhow::Error::msg)?;
                let channels = |name: &str| manifest.layer(name).map(|layer| i64::from(layer.channels));
                let first = channels("res2").map(|channels| channels / architecture.expansion() as i64);
                Ok(NetworkSize { architecture, stem_width: first.unwrap_or(STANDARD_STEM) })
            }
        }
    }

    /// Builds the network for its features; `seed` draws random weights.
    ///
    /// # Errors
    /// If the weights do not make up the network, or it has no such `layer`.
    pub fn frozen(&self, layer: &str, seed: u64, setup: Setup) -> Result<FrozenNetwork> {
        let LoadedModel::Onnx(model) = &self.source else {
            return Ok(FrozenNetwork(FrozenBackend::Torch(self.torch(layer, seed, setup)?)));
        };
        let known = || model.outputs().collect::<Vec<_>>().join(", ");
        ensure!(model.outputs().any(|name| name == layer), "it has no layer `{layer}`, but {}", known());
        // Cut off behind the layer: a run computes the whole graph.
        let graph = model.cut(&[layer], Precision::Float32)?;
        let threads = usize::try_from(tch::get_num_threads()).unwrap_or(1).max(1);
        let session = OnnxSession::from_bytes(&graph, threads)?;
        Ok(FrozenNetwork(FrozenBackend::Onnx { session, layer: layer.to_owned(), device: setup.device }))
    }

    /// Builds the backbone with gradients, to be fine-tuned; `seed` draws random weights.
    ///
    /// # Errors
    /// The errors of [`Model::frozen`], and an error for an ONNX model.
    pub fn trainable(&self, layer: &str, seed: u64, setup: Setup) -> Result<TorchNetwork> {
        if let LoadedModel::Onnx(_) = self.source {
            bail!("an ONNX model cannot be fine-tuned; name the checkpoint that it was exported from");
        }
        let network = self.torch(layer, seed, setup)?;
        Ok(TorchNetwork { backbone: network.backbone.trainable(), ..network })
    }

    fn torch(&self, layer: &str, seed: u64, setup: Setup) -> Result<TorchNetwork> {
        let stage = LAYERS.iter().position(|name| *name == layer);
        let stage = stage.with_context(|| format!("there is no layer `{layer}`, but {}", LAYERS.join(", ")))?;
        let NetworkSize { architecture, .. } = self.size()?;
        let drawn;
        let weights = if let LoadedModel::Trained(pretrained) = &self.source {
            &pretrained.weights
        } else {
            drawn = random_weights(self.size()?, seed);
            &drawn
        };
        let backbone = Backbone::from_weights(architecture, weights, setup.output_stride, setup.device)?;
        Ok(TorchNetwork { backbone, stage, device: setup.device })
    }
}

/// The weights that a training with this seed begins with.
fn random_weights(size: NetworkSize, seed: u64) -> Weights {
    let NetworkSize { architecture, stem_width } = size;
    tch::manual_seed(seed as i64);
    let spec = EncoderSpec { architecture, stem_width, dim: 1, dense: false };
    Encoder::new(spec, Kind::Float, Device::Cpu).weights()
}

/// A network without gradients.
#[derive(Debug)]
pub struct FrozenNetwork(FrozenBackend);

#[derive(Debug)]
enum FrozenBackend {
    Torch(TorchNetwork),
    Onnx { session: OnnxSession, layer: String, device: Device },
}

impl FrozenNetwork {
    /// uint8 images `[N, H, W, 3]` → float32 `[N, C, h, w]`, or `[N, C]` of a layer without cells.
    ///
    /// # Errors
    /// If an ONNX model refuses them.
    pub fn features(&mut self, images: &Tensor) -> Result<Tensor> {
        match &mut self.0 {
            FrozenBackend::Torch(network) => Ok(tch::no_grad(|| network.forward(images, Statistics::Running))),
            FrozenBackend::Onnx { session, layer, device } => {
                let maps = session.run(images, &[layer])?;
                Ok(maps[0].to_device(*device))
            }
        }
    }
}

/// A backbone up to one of its layers.
#[derive(Debug)]
pub struct TorchNetwork {
    backbone: Backbone,
    stage: usize,
    device: Device,
}

impl TorchNetwork {
    /// The statistics of the whole batch, for training.
    pub const OF_BATCH: Statistics = Statistics::Batch { splits: 1, part: BatchPart::WHOLE };

    /// uint8 images `[N, H, W, 3]` → `[N, C, h, w]`.
    pub fn forward(&self, images: &Tensor, statistics: Statistics) -> Tensor {
        let images = images.to_device(self.device).permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0; // [N, 3, H, W]
        let maps = self.backbone.forward(&Normalization::IMAGENET.apply(&images), statistics);
        maps.stages[self.stage].shallow_clone()
    }

    /// The parameters that are fine-tuned.
    pub fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.backbone.tensors().parameters()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETUP: Setup = Setup { output_stride: OutputStride::Stride16, device: Device::Cpu };

    #[test]
    fn models_are_named_as_on_the_command_line() {
        for (text, source) in [
            ("random", ModelSource::Random(None)),
            ("random:resnet34", ModelSource::Random(Some(Architecture::ResNet34))),
            ("./random", ModelSource::File("./random".into())),
            ("randomly.onnx", ModelSource::File("randomly.onnx".into())),
        ] {
            assert_eq!(text.parse::<ModelSource>().unwrap(), source);
            assert_eq!(source.to_string(), text);
        }
        assert!("random:vgg".parse::<ModelSource>().unwrap_err().contains("resnet50"));
    }

    fn random() -> Model {
        let sources = [ModelSource::Random(Some(Architecture::ResNet18))];
        Model::open_all(&sources, &ReadOptions::default()).unwrap().remove(0)
    }

    /// `tests/transfer/test_evaluate.py` checks that equal seeds give equal weights: here other tests
    /// draw from libtorch's generator, of which a process has one.
    #[test]
    fn seeds_have_weights_of_their_own() {
        let images = Tensor::full([1, 64, 96, 3], 77, (Kind::Uint8, Device::Cpu));
        let features = |seed| random().frozen("res5", seed, SETUP).unwrap().features(&images).unwrap();
        assert_eq!(features(1).size(), [1, 512, 4, 6]);
        assert_ne!(features(1), features(2));
    }

    #[test]
    fn an_unknown_layer_is_an_error_that_lists_the_known_ones() {
        let error = random().frozen("dense", 0, SETUP).unwrap_err().to_string();
        assert!(error.contains("`dense`") && error.contains("res2, res3, res4, res5"), "{error}");
    }
}
