//! Pre-trained networks: weights by name, and their origin.
//!
//! Exports, conversions and evaluations read networks only here, so each of them accepts every kind of
//! file that [`Pretrained::read`] knows.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use densecl_checkpoints::{
    Allow, CheckpointFile, CheckpointLayout, LayoutError, Network, WeightsError, check_transformers_config,
};
use densecl_models::Training;
use densecl_models::resnet::{Architecture, Weights};
use tch::{Device, Kind};

use crate::checkpoint::{Checkpoint, locate};
use crate::config::{Config, Method};
use crate::network::Encoder;

/// Key in the metadata of a safetensors file under which [`Training`] stands as JSON.
pub(crate) const TRAINING_KEY: &str = "densecl.training";

/// A network read from a file.
#[derive(Clone, Debug)]
pub struct Pretrained {
    /// Origin of the weights: `densecl`, `moco-v2`, `random`, …
    pub method: String,
    /// The backbone.
    pub architecture: Architecture,
    /// The backbone under torchvision's names; `global_head.{0,2}` and `dense_head.{0,2}`, as far
    /// as the file holds them.
    pub weights: Weights,
    /// Record of their training, if the file holds one.
    pub training: Option<Training>,
    /// `true` if a run of this trainer made the weights; otherwise their licence is somebody else's to choose.
    pub is_own: bool,
}

/// Which weights to read from another tool's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Name of the network if there are several, such as `ema`; see [`Network::find_called`].
    pub weight_set: Option<String>,
    /// Names that may be missing, unexpected or of another shape.
    pub allow: Allow,
}

/// Files of weights in a folder of Hugging Face's Hub.
const HUB_FILES: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

impl Pretrained {
    /// Reads the query encoder of a checkpoint's folder, of a run's newest checkpoint, or of a file
    /// of another tool: `.pth` (zip or legacy), `.safetensors`, Detectron2's `.pkl`, or a folder of Hugging Face's Hub that
    /// holds such a file.
    ///
    /// # Errors
    /// If there is none, it is damaged, or a file's network is not whole; all names that are missing,
    /// unexpected or of another shape are listed.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_with(path, &ReadOptions::default())
    }

    /// Reads a network like [`Pretrained::read`], of another tool's file what `options` say.
    ///
    /// # Errors
    /// The errors of [`Pretrained::read`].
    pub fn read_with(path: &Path, options: &ReadOptions) -> Result<Self> {
        ensure!(path.exists(), "{} is not there", path.display());
        if let Some(file) = weights_file(path) {
            Self::from_file(&file, options).with_context(|| format!("cannot take a network from {}", file.display()))
        } else {
            if let Some(name) = &options.weight_set {
                bail!("{} is a run or checkpoint of this trainer, which has no weight set `{name}`", path.display());
            }
            Self::from_checkpoint(path)
        }
    }

    fn from_file(path: &Path, options: &ReadOptions) -> Result<Self> {
        let file = CheckpointFile::open(path)?;
        let network = find_network(&file, options.weight_set.as_deref())?;
        if network.layout == CheckpointLayout::Transformers {
            check_transformers_config(path)?;
        }
        log_averaged(&network);
        let weights = network.weights(&options.allow).map_err(with_cure)?;
        tracing::info!(
            path = %path.display(),
            format = %file.format(),
            layout = %network.layout,
            taken = %format_args!("{} ({})", network.role, network.origin),
            architecture = %network.architecture,
            tensors = weights.len(),
            left_aside = network.left_aside.len(),
            "weights read; left aside: {}",
            if network.left_aside.is_empty() { "nothing".to_owned() } else { network.left_aside_summary() }
        );
        let foreign: Vec<_> = file.foreign_classes().collect();
        if !foreign.is_empty() {
            tracing::info!(classes = ?&foreign[..foreign.len().min(8)], count = foreign.len(), "objects of these classes are not read");
        }
        let training = file.metadata().get(TRAINING_KEY).map(|json| serde_json::from_str(json)).transpose();
        let training: Option<Training> = training.with_context(|| format!("its `{TRAINING_KEY}` is not valid"))?;
        Ok(Self {
            method: network.method().to_owned(),
            architecture: network.architecture,
            weights,
            is_own: training.is_some() || network.layout == CheckpointLayout::DenseclState,
            training,
        })
    }

    fn from_checkpoint(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::read(&locate(path)?)?;
        let config = &checkpoint.record.config;
        let encoder = encoder_of(&checkpoint)?;
        let training = Training {
            data: data_name(config),
            steps: checkpoint.record.step,
            seed: config.seed,
            commit: checkpoint.record.commit.clone(),
            config: serde_json::to_value(config)?,
        };
        Ok(Self {
            method: method(config, checkpoint.record.step).to_owned(),
            architecture: encoder.spec().architecture,
            weights: encoder.weights(),
            training: Some(training),
            is_own: true,
        })
    }
}

/// The file that a path stands for: itself, or the weights in a folder of Hugging Face's Hub.
pub(crate) fn weights_file(path: &Path) -> Option<PathBuf> {
    let in_folder = HUB_FILES.iter().map(|name| path.join(name));
    std::iter::once(path.to_owned()).chain(in_folder).find(|file| file.is_file())
}

/// Finds a file's network; the error says how to choose among several.
pub(crate) fn find_network<'a>(file: &'a CheckpointFile, name: Option<&str>) -> Result<Network<'a>> {
    let found = match name {
        Some(name) => Network::find_called(file, name),
        None => Network::find(file),
    };
    found.map_err(|error| match error {
        LayoutError::Ambiguous(_) => Error::new(error).context("choose one with --weight-set NAME"),
        LayoutError::NotFound { .. } | LayoutError::NotCalled { .. } => error.into(),
    })
}

/// Says which averaged weights are in the file and not taken, and how to take them.
fn log_averaged(network: &Network<'_>) {
    let averaged: Vec<_> = network.others.iter().filter(|other| other.is_averaged).collect();
    if let Some(first) = averaged.first() {
        let names: Vec<_> = averaged.iter().map(|other| other.name.as_str()).collect();
        tracing::warn!(
            "averaged weights (EMA) are left aside: {}; --weight-set {} takes them instead",
            names.join(", "),
            if averaged.len() == 1 { "ema" } else { first.name.as_str() }
        );
    }
}

/// Every command that reads files has the flag that the error names.
fn with_cure(error: WeightsError) -> Error {
    match error {
        WeightsError::Problems { .. } => {
            Error::new(error).context("names that may be missing or ignored have to be allowed: --allow 'PATTERN'")
        }
        WeightsError::TooLarge { .. } | WeightsError::Damaged(_) | WeightsError::Data { .. } => error.into(),
    }
}

/// The query encoder of a checkpoint, float32 on the CPU.
///
/// # Errors
/// If the checkpoint lacks a tensor.
pub fn encoder_of(checkpoint: &Checkpoint) -> Result<Encoder> {
    let encoder = Encoder::new(checkpoint.record.config.encoder_spec()?, Kind::Float, Device::Cpu);
    checkpoint.restore_encoder(&encoder, "query")?;
    Ok(encoder)
}

fn method(config: &Config, steps: u64) -> &'static str {
    match (steps, config.method) {
        (0, _) => "random",
        (_, Method::DenseCl) => "densecl",
        (_, Method::MocoV2) => "moco-v2",
    }
}

/// The data's own name, not the path that they have on this machine.
fn data_name(config: &Config) -> String {
    let path = Path::new(&config.data.source);
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
