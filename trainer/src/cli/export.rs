//! `densecl-trainer export` and `bench-export`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use densecl_models::resnet::{Architecture, OutputStride};
use densecl_models::{Fidelity, OutputFidelity};
use tch::{Device, Kind};

use super::checkpoint_args::CheckpointArgs;
use crate::export::{Calibration, ExportOptions, ExportVariant, Exported, Speed, SpeedTest, WeightFormat, export};
use crate::network::{Encoder, EncoderSpec};
use crate::pretrained::Pretrained;

/// Images that an int8 model is calibrated on, by default.
const CALIBRATION_IMAGES: usize = 32;

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// A checkpoint's folder, a run whose newest is taken, a file of another tool (`.pth`,
    /// `.safetensors`, `.pkl`), or a folder of Hugging Face's Hub.
    checkpoint: PathBuf,
    /// `<repository>/<name>/<version>`.
    #[arg(long)]
    out: PathBuf,
    /// Storage of weights; with int8 the convolutions compute in integers, else in float32.
    #[arg(long, value_enum, default_value_t = Weights::Float32)]
    weights: Weights,
    /// Input pixels per cell of the last layers: 16 and 8 put dilations in the place of strides.
    #[arg(long, default_value_t, value_name = "32|16|8")]
    output_stride: OutputStride,
    /// The outputs that the model has, such as `res3,res4,dense` or `global` [default: all].
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    layers: Option<Vec<String>>,
    /// The layer, or several joined by `+`, for requests that name none [default: res4, or the last one].
    #[arg(long)]
    default_layer: Option<String>,
    /// The longer side, in pixels, that images are resized to by default.
    #[arg(long, default_value_t = 512)]
    default_side: u32,
    /// SPDX identifier of the weights' licence, such as `CC-BY-NC-4.0`; needed for weights that no run of this trainer made
    /// [default for the others: Apache-2.0].
    #[arg(long, visible_alias = "license")]
    licence: Option<String>,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    reading: CheckpointArgs,
}

#[derive(Debug, Args)]
struct CalibrationArgs {
    /// For int8: images like those that the model will see; a folder, a list, or shards [default: synthetic].
    #[arg(long, value_name = "PATH|synthetic")]
    calibration: Option<String>,
    /// For int8: number of calibration images [default: 32].
    #[arg(long, value_name = "N")]
    calibration_images: Option<usize>,
    /// For int8: seed of procedural images, or of the choice among files [default: 0].
    #[arg(long, value_name = "SEED")]
    calibration_seed: Option<u64>,
    /// For int8: side in pixels to which images are resized [default: the default side].
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(32..))]
    calibration_side: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Weights {
    Float32,
    Float16,
    Int8,
}

#[derive(Debug, Args)]
pub(super) struct BenchExportArgs {
    /// A checkpoint's folder, a run whose newest is taken, or a file of another tool.
    #[arg(required_unless_present = "architecture", conflicts_with = "architecture")]
    checkpoint: Option<PathBuf>,
    /// A network with random weights instead, such as `resnet50`: speed does not depend on them.
    #[arg(long)]
    architecture: Option<Architecture>,
    /// The output that is computed.
    #[arg(long, default_value = "res5")]
    layer: String,
    /// Height and width of the images, in pixels; several, separated by commas.
    #[arg(long, value_name = "PIXELS", value_delimiter = ',', default_value = "224,512")]
    side: Vec<u32>,
    /// Threads of ONNX Runtime.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Timed runs of each model, one image each.
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: CheckpointArgs,
}

impl CalibrationArgs {
    fn calibration(self, default_side: u32) -> Calibration {
        Calibration {
            source: self.calibration.unwrap_or_else(|| "synthetic".to_owned()),
            images: self.calibration_images.unwrap_or(CALIBRATION_IMAGES),
            seed: self.calibration_seed.unwrap_or_default(),
            side_px: self.calibration_side.unwrap_or(default_side),
        }
    }

    fn is_given(&self) -> bool {
        self.calibration.is_some()
            || self.calibration_images.is_some()
            || self.calibration_seed.is_some()
            || self.calibration_side.is_some()
    }
}

impl ExportArgs {
    pub(super) fn run(self) -> Result<String> {
        let Self { output_stride, layers, default_layer, default_side, licence, calibration, reading, .. } = self;
        ensure!(
            self.weights == Weights::Int8 || !calibration.is_given(),
            "--calibration and its like are for --weights int8 alone"
        );
        let weights = match self.weights {
            Weights::Float32 => WeightFormat::Float32,
            Weights::Float16 => WeightFormat::Float16,
            Weights::Int8 => WeightFormat::Int8(calibration.calibration(default_side)),
        };
        let variant = ExportVariant { weights, output_stride, layers };
        let reading = reading.options();
        let options = ExportOptions { reading, variant, default_layer, default_side, licence };
        let Exported { path, fidelity } = export(&self.checkpoint, &self.out, &options).context("the export failed")?;
        let mut lines = vec![format!("exported: {}", path.display())];
        lines.extend(fidelity_lines(&fidelity));
        Ok(lines.join("\n"))
    }
}

/// A table of how close the outputs are.
fn fidelity_lines(fidelity: &Fidelity) -> Vec<String> {
    let images: u32 = fidelity.shapes.iter().map(|[count, ..]| count).sum();
    let title =
        format!("{} against libtorch on {images} images of {} shapes:", fidelity.weights, fidelity.shapes.len());
    let line = |output: &OutputFidelity| {
        let OutputFidelity { name, mean_cosine, minimum_cosine, relative_error } = output;
        format!("  {name:<8}cosine {mean_cosine:.6} mean, {minimum_cosine:.6} least; error {relative_error:.1e}")
    };
    [title].into_iter().chain(fidelity.outputs.iter().map(line)).collect()
}

impl BenchExportArgs {
    pub(super) fn run(self) -> Result<String> {
        let (architecture, weights) = match (&self.checkpoint, self.architecture) {
            (Some(checkpoint), _) => {
                let options = self.reading.clone().options();
                let Pretrained { architecture, weights, .. } = Pretrained::read_with(checkpoint, &options)?;
                (architecture, weights)
            }
            (None, architecture) => {
                let architecture = architecture.context("a checkpoint or --architecture is needed")?;
                let spec = EncoderSpec { architecture, stem_width: 64, dim: 128, dense: true };
                (architecture, Encoder::new(spec, Kind::Float, Device::Cpu).weights())
            }
        };
        let mut speeds = Vec::new();
        for &side_px in &self.side {
            let (weights, layer) = (weights.clone(), self.layer.clone());
            let Self { threads, rounds, .. } = self;
            speeds.extend(SpeedTest { architecture, weights, layer, side_px, threads, rounds }.run()?);
        }
        if self.json {
            return Ok(serde_json::to_string(&speeds)?);
        }
        let setting = format!(
            "{architecture}, {} with --threads {}, median of {} runs in turns",
            self.layer, self.threads, self.rounds
        );
        let header = "side  stride  weights     ms   images/s  over float32  over float32 at stride 32";
        let lines = [setting, header.to_owned()].into_iter().chain(speeds.iter().map(speed_line));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}

fn speed_line(speed: &Speed) -> String {
    let Speed { output_stride, weights, side_px, median_seconds, images_per_second, over_float32, over_stride_32 } =
        speed;
    format!(
        "{side_px:>4}  {output_stride:>6}  {weights:<8}{:>6.1} {images_per_second:>10.1}  {over_float32:>11.2}×  {over_stride_32:>24.2}×",
        1e3 * median_seconds
    )
}
