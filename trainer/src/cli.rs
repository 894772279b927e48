//! The command line of `densecl-trainer`.

mod checkpoint_args;
mod convert;
mod evaluate;
mod export;
mod world;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::export::{BenchExportArgs, ExportArgs};
use crate::accelerator::DeviceChoice;
use crate::bench::Bench;
use crate::config::Config;
use crate::monitor::ProgressStyle;
use crate::pretrain::{Outcome, Run, Stop, pretrain};
use crate::report::report;
use crate::{golden, inspect};
use checkpoint_args::CheckpointArgs;
use convert::ConvertArgs;
use densecl_procedural::Split;
use densecl_procedural::synth::{self, Size};
use world::WorldArgs;

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
    /// Write a network in the layout of torchvision, Detectron2, mmpretrain, or this project.
    Convert(ConvertArgs),
    /// Describe a checkpoint, a run, a file of another tool's weights or an ONNX model.
    Inspect {
        /// The file or folder.
        file: PathBuf,
        #[command(flatten)]
        reading: CheckpointArgs,
    },
    /// Write a page about runs: figures, curves, pictures, differences of configuration.
    Report(ReportArgs),
    /// Write procedural images: alone, with exact correspondences, or with labels.
    Synth(SynthArgs),
    /// Compare the features of networks on labelled images.
    Evaluate(evaluate::EvaluateArgs),
    /// Time training steps, and the loader by itself.
    Bench(BenchArgs),
    /// Time a network's ONNX models on this CPU: float32, float16 and int8 at strides 32, 16 and 8.
    BenchExport(BenchExportArgs),
    /// Replay a file of recorded training steps and compare.
    Golden {
        /// The recorded steps.
        input: PathBuf,
        /// The file for the replayed steps.
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
    /// A folder of images, a list of them, tar shards, or `synthetic`; short for `--set data.source=…`.
    #[arg(long, value_name = "PATH|synthetic")]
    data: Option<String>,
    /// The run's folder.
    #[arg(long, default_value = "runs/pretrain")]
    out: PathBuf,
    /// Resume from the newest checkpoint in the run's folder.
    #[arg(long)]
    resume: bool,
    /// Training device.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    #[command(flatten)]
    world: WorldArgs,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// The runs' folders; they may still be training.
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page, one HTML file that needs no other.
    #[arg(long, default_value = "report.html")]
    out: PathBuf,
}

#[derive(Debug, Args)]
struct SynthArgs {
    /// Kind of the data set.
    #[arg(long, value_enum)]
    kind: SynthKind,
    /// Number of images or sequences; of the labelled kinds, training images.
    #[arg(long)]
    count: usize,
    /// Seed of the data set.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A new or empty folder.
    #[arg(long)]
    out: PathBuf,
    /// `WIDTHxHEIGHT` in pixels [default: 256x256 for images, 480x360 for the rest].
    #[arg(long)]
    size: Option<Size>,
    /// Pictures for training, or held-out ones [default: held-out]; the labelled kinds have both.
    #[arg(long, value_enum)]
    split: Option<SynthSplit>,
    /// Frames of each of the scenes' sequences [default: 8].
    #[arg(long)]
    frames: Option<usize>,
    /// Held-out images of the labelled kinds [default: a fifth of the count].
    #[arg(long)]
    val_count: Option<usize>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// The configuration, TOML.
    #[arg(long)]
    config: PathBuf,
    /// Overrides of the configuration, such as `optimizer.batch=64`.
    #[arg(long = "set", value_name = "KEY=VALUE", num_args = 1..)]
    set: Vec<String>,
    /// Training device.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Part to time.
    #[arg(long, value_enum, default_value_t = BenchPart::All)]
    part: BenchPart,
    /// Number of steps, or of batches of the loader.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// Number of untimed steps or batches before.
    #[arg(long, default_value_t = 3)]
    warmup: u64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    world: WorldArgs,
    /// Time steps on demand: a line `run N` on standard input is answered by a line of JSON.
    #[arg(long, conflicts_with_all = ["part", "steps"])]
    serve: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum BenchPart {
    /// Training steps on batches that are in memory.
    Step,
    /// The threads that draw or decode images.
    Loader,
    /// Both, one after the other.
    All,
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

impl Cli {
    /// Runs the command; returns its output.
    ///
    /// # Errors
    /// The error of the command, for the user.
    pub fn run(self) -> Result<String> {
        match self.command {
            Command::Pretrain(args) => args.run(),
            Command::Export(args) => args.run(),
            Command::Convert(args) => args.run(),
            Command::Synth(args) => args.run(),
            Command::Report(args) => args.run(),
            Command::Evaluate(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::BenchExport(args) => args.run(),
            Command::Inspect { file, reading } => inspect::inspect(&file, &reading.options()),
            Command::Golden { input, output } => {
                let found = golden::replay(&input, &output)?;
                let line = format!("{} tensors, worst {} {:.3e}", found.compared, found.worst, found.relative_error);
                ensure!(found.relative_error <= GOLDEN_TOLERANCE, "{line}, above {GOLDEN_TOLERANCE:e}");
                Ok(line)
            }
        }
    }
}

impl ReportArgs {
    fn run(self) -> Result<String> {
        let bytes = report(&self.runs, &self.out)?;
        Ok(format!("report: {} ({:.1} MB)", self.out.display(), bytes as f64 / 1e6))
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
        let Self { out, resume, device, world, .. } = self;
        let (stop, progress) = (Stop::on_signals()?, ProgressStyle::detect());
        let (world, device) = world.connect(device)?;
        let run = Run { config, out, resume, device, world, stop, progress };
        let Outcome { checkpoint, step, total_steps, passed_over, skipped } = pretrain(&run)?;
        if !run.world.is_first() {
            return Ok(String::new());
        }
        let mut text = if step < total_steps {
            format!("stopped after step {step} of {total_steps}: {}; go on with --resume", checkpoint.display())
        } else {
            format!("trained: {}", checkpoint.display())
        };
        if skipped.total() > 0 {
            let _ = write!(text, "\nimages that could not be read: {skipped}");
        }
        if !passed_over.is_empty() {
            let _ = write!(text, "\npassed over: {passed_over}");
        }
        Ok(text)
    }
}

impl BenchArgs {
    fn run(self) -> Result<String> {
        let config = Config::read(&self.config, &self.set)?;
        let (world, device) = self.world.connect(self.device)?;
        let bench = Bench { config, device, world, warmup: self.warmup };
        let text = bench.world.conclude(self.time(&bench))?;
        Ok(if bench.world.is_first() { text } else { String::new() })
    }

    fn time(&self, bench: &Bench) -> Result<String> {
        if self.serve {
            bench.serve(std::io::stdin().lock(), std::io::stdout().lock())?;
            return Ok(String::new());
        }
        let mut timings = Vec::new();
        if self.part != BenchPart::Loader {
            timings.push(bench.steps(self.steps)?);
        }
        if self.part != BenchPart::Step {
            timings.push(bench.loader(self.steps)?);
        }
        if self.json { bench.json(&timings) } else { Ok(bench.text(&timings)) }
    }
}
