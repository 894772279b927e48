//! Pre-trained networks: weights by name, and their origin.
//!
//! Exports, conversions and evaluations read networks only here, so each of them accepts every kind of
//! file that [`Pretrained::read`] knows.

use std::path::Path;

use anyhow::{Context, Result};
use densecl_checkpoints::{Allow, CheckpointFile, Network};
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
}

impl Pretrained {
    /// Reads the query encoder of a checkpoint's folder, of a run's newest checkpoint, or of a file
    /// of another tool: `.pth` (zip or legacy), `.safetensors`, Detectron2's `.pkl`.
    ///
    /// # Errors
    /// If there is none, it is damaged, or a file's network is not whole; all names that are missing,
    /// unexpected or of another shape are listed.
    pub fn read(path: &Path) -> Result<Self> {
        Self::read_allowing(path, &Allow::nothing())
    }

    /// Reads a network like [`Pretrained::read`], but `allow`s some names of a file to be missing,
    /// unexpected or of another shape.
    ///
    /// # Errors
    /// The errors of [`Pretrained::read`].
    pub fn read_allowing(path: &Path, allow: &Allow) -> Result<Self> {
        if path.is_file() { Self::from_file(path, allow) } else { Self::from_checkpoint(path) }
    }

    fn from_file(path: &Path, allow: &Allow) -> Result<Self> {
        let failed = || format!("cannot take a network from {}", path.display());
        let file = CheckpointFile::open(path).with_context(failed)?;
        let network = Network::find(&file).with_context(failed)?;
        let weights = network.weights(allow).with_context(failed)?;
        tracing::info!(
            path = %path.display(),
            format = %file.format(),
            layout = %network.layout,
            taken = %format_args!("{} ({})", network.role, network.origin),
            architecture = %network.architecture,
            tensors = weights.len(),
            left_aside = network.left_aside.len(),
            "weights read"
        );
        let training = file.metadata().get(TRAINING_KEY).map(|json| serde_json::from_str(json)).transpose();
        Ok(Self {
            method: network.method().to_owned(),
            architecture: network.architecture,
            weights,
            training: training.with_context(|| format!("`{TRAINING_KEY}` in {} is not valid", path.display()))?,
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
        })
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
