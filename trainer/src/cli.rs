//! The command line of `densecl-trainer`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use densecl_models::graph::WeightStorage;

use crate::accelerator::DeviceChoice;
use crate::config::Config;
use crate::data::procedural::Split;
use crate::export::{ExportOptions, export};
use crate::pretrain::{Run, pretrain};
use crate::synth::{self, Size};
use crate::{golden, inspect};

/// Largest relative error that a replayed golden file may show.
const GOLDEN_TOLERANCE: f64 = 1e-9;

/// Pre-trains DenseCL and MoCo-v2, and exports ONNX models.
#[derive(Debug, Parser)]
#[command(name = "densecl-trainer", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pre-train on a folder of images, or on procedural ones.
    Pretrain(PretrainArgs),
    /// Write a checkpoint as an ONNX model with its manifest.
    Export(ExportArgs),
    /// Say what is in a checkpoint, a run, a safetensors file or an ONNX model.
    Inspect {
        /// The file or folder.
        file: PathBuf,
    },
    /// Write procedural images: alone, with exact correspondences, or with labels.
    Synth(SynthArgs),
    /// Replay a file of recorded training steps and compare.
    Golden {
        /// The recorded steps.
        input: PathBuf,
        /// Where to write the replayed ones.
        output: PathBuf,
    },
}

#[derive(Debug, Args)]
struct PretrainArgs {
    /// The configuration, TOML.
    #[arg(long)]
    config: PathBuf,
    /// Overrides of the configuration, such as `optimizer.batch=64`.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// A folder of images, or `synthetic`; short for `--set data.source=…`.
    #[arg(long, value_name = "PATH|synthetic")]
    data: Option<String>,
    /// The run's folder.
    #[arg(long, default_value = "runs/pretrain")]
    out: PathBuf,
    /// Go on from the newest checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// Where to train.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
}

#[derive(Debug, Args)]
struct ExportArgs {
    /// A checkpoint's folder, or a run whose newest is taken.
    checkpoint: PathBuf,
    /// `<repository>/<name>/<version>`.
    #[arg(long)]
    out: PathBuf,
    /// How weights are stored; the arithmetic is float32.
    #[arg(long, value_enum, default_value_t = Weights::Float32)]
    weights: Weights,
    /// The layer, or several joined by `+`, for requests that name none [default: res4].
    #[arg(long)]
    default_layer: Option<String>,
    /// The longer side, in pixels, that images are resized to by default.
    #[arg(long, default_value_t = 512)]
    default_side: u32,
    /// SPDX identifier of the weights' licence.
    #[arg(long, default_value = "Apache-2.0")]
    licence: String,
}

#[derive(Debug, Args)]
struct SynthArgs {
    /// What to write.
    #[arg(long, value_enum)]
    kind: SynthKind,
    /// How many images or sequences; of the labelled kinds, training images.
    #[arg(long)]
    count: usize,
    /// Seed; what is written is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A new or empty folder.
    #[arg(long)]
    out: PathBuf,
    /// `WIDTHxHEIGHT` in pixels [default: 256x256 for images, 480x360 for the rest].
    #[arg(long)]
    size: Option<Size>,
    /// Pictures that training may see, or others [default: held-out]; the labelled kinds have both.
    #[arg(long, value_enum)]
    split: Option<SynthSplit>,
    /// Frames of each of the scenes' sequences [default: 8].
    #[arg(long)]
    frames: Option<usize>,
    /// Held-out images of the labelled kinds [default: a fifth of the count].
    #[arg(long)]
    val_count: Option<usize>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SynthKind {
    /// PNG files.
    Images,
    /// Sequences in the layout of HPatches.
    Pairs,
    /// Sequences of moving objects, with masks and dense correspondences.
    Scenes,
    /// Label maps in the layout of PASCAL VOC.
    Segmentation,
    /// Boxes and masks in the layouts of PASCAL VOC and COCO.
    Detection,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SynthSplit {
    Train,
    HeldOut,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Weights {
    Float32,
    Float16,
}

impl Cli {
    /// Does what the command line asks for; returns what to print.
    ///
    /// # Errors
    /// Whatever went wrong, told so that the user can mend it.
    pub fn run(self) -> Result<String> {
        match self.command {
            Command::Pretrain(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Synth(args) => args.run(),
            Command::Inspect { file } => inspect::inspect(&file),
            Command::Golden { input, output } => {
                let found = golden::replay(&input, &output)?;
                let line = format!("{} tensors, worst {} {:.3e}", found.compared, found.worst, found.relative_error);
                ensure!(found.relative_error <= GOLDEN_TOLERANCE, "{line}, above {GOLDEN_TOLERANCE:e}");
                Ok(line)
            }
        }
    }
}

impl SynthArgs {
    fn run(self) -> Result<String> {
        let kind = match self.kind {
            SynthKind::Images => synth::Kind::Images,
            SynthKind::Pairs => synth::Kind::Pairs,
            SynthKind::Scenes => synth::Kind::Scenes,
            SynthKind::Segmentation => synth::Kind::Segmentation,
            SynthKind::Detection => synth::Kind::Detection,
        };
        let scenes = matches!(self.kind, SynthKind::Scenes);
        let labelled = matches!(self.kind, SynthKind::Segmentation | SynthKind::Detection);
        ensure!(scenes || self.frames.is_none(), "--frames is for --kind scenes alone");
        ensure!(labelled || self.val_count.is_none(), "--val-count is for the kinds segmentation and detection");
        ensure!(!labelled || self.split.is_none(), "--split is not for this kind, which has both: train and val");
        let split = match self.split {
            Some(SynthSplit::Train) => Split::Train,
            Some(SynthSplit::HeldOut) | None => Split::HeldOut,
        };
        let frames = self.frames.unwrap_or(synth::Options::DEFAULT_FRAMES);
        let options = synth::Options { size: self.size, split, frames, val_count: self.val_count };
        let written = synth::run(kind, self.count, self.seed, &self.out, &options)?;
        Ok(format!("wrote {} images to {}", written.images, self.out.display()))
    }
}

impl PretrainArgs {
    fn run(self) -> Result<String> {
        let mut overrides = self.set;
        if let Some(data) = self.data {
            overrides.push(format!("data.source={}", toml::Value::String(data)));
        }
        let config = Config::read(&self.config, &overrides)?;
        let run = Run { config, out: self.out, resume: self.resume, device: self.device.resolve()? };
        let checkpoint = pretrain(&run)?;
        Ok(format!("trained: {}", checkpoint.display()))
    }
}

impl ExportArgs {
    fn run(self) -> Result<String> {
        let storage = match self.weights {
            Weights::Float32 => WeightStorage::Float32,
            Weights::Float16 => WeightStorage::Float16,
        };
        let Self { default_layer, default_side, licence, .. } = self;
        let options = ExportOptions { storage, default_layer, default_side, licence };
        let path = export(&self.checkpoint, &self.out, &options).context("the export failed")?;
        Ok(format!("exported: {}", path.display()))
    }
}
