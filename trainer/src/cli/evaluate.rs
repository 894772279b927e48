//! The arguments of `evaluate`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use densecl_models::resnet::OutputStride;

use super::checkpoint_args::CheckpointArgs;
use crate::accelerator::DeviceChoice;
use crate::evaluate::data::Splits;
use crate::evaluate::{
    Classification, Classifier, Comparison, ImageBatches, ModelSource, Protocol, Report, Schedule, Segmentation, Setup,
    TrainingOptions, classify, segment,
};
use densecl_models::atomic_file;

#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Classify a labelled folder by the nearest neighbours of frozen features.
    Knn(KnnArgs),
    /// Classify a labelled folder by logistic regression on frozen features.
    Linear(LinearArgs),
    /// Train a 1x1 convolution on frozen features for semantic segmentation (VOC, Cityscapes).
    SegmentationLinear(SegmentationLinearArgs),
    /// Fine-tune a network with a fully convolutional head for semantic segmentation (VOC, Cityscapes).
    SegmentationFcn(SegmentationFcnArgs),
}

#[derive(Debug, Args)]
struct CommonArgs {
    /// A checkpoint, a run, another tool's file of weights, an ONNX file, or `random[:ARCHITECTURE]` for random weights;
    /// several make a table of several rows.
    #[arg(long = "model", value_name = "MODEL", required = true, num_args = 1..)]
    models: Vec<ModelSource>,
    /// The labelled images.
    #[arg(long)]
    data: PathBuf,
    /// A repetition for each; the table gives their mean and standard deviation.
    #[arg(long, value_delimiter = ',', default_value = "0,1,2")]
    seeds: Vec<u64>,
    /// The features: `res2` to `res5`, or any other output of an ONNX model.
    #[arg(long, default_value = "res5")]
    layer: String,
    /// Device of libtorch; ONNX models run on the CPU.
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Write the table, each repetition and all settings to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    reading: CheckpointArgs,
}

#[derive(Debug, Args)]
struct FolderArgs {
    /// Side in pixels of the central square that the network sees: 7/8 of the shorter side, resized.
    #[arg(long, default_value_t = 224, value_parser = clap::value_parser!(u32).range(32..))]
    side: u32,
    /// Images that go through the network at a time.
    #[arg(long, default_value_t = 64, value_parser = positive)]
    batch: usize,
    /// Write the features and labels of one model (with its first seed) to this safetensors file.
    #[arg(long, value_name = "FILE")]
    features_out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct KnnArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    folder: FolderArgs,
    /// Neighbours that vote; several make a column each.
    #[arg(long, value_delimiter = ',', default_value = "20")]
    k: Vec<i64>,
    /// A neighbour's vote weighs exp(cosine / temperature).
    #[arg(long, default_value_t = 0.07, value_parser = positive_number)]
    temperature: f64,
}

#[derive(Debug, Args)]
struct LinearArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    folder: FolderArgs,
}

#[derive(Debug, Args)]
struct PixelArgs {
    /// The list of images to train on: `train`, or VOC's `trainaug`.
    #[arg(long, default_value = "train")]
    train_split: String,
    /// The list of images to test on.
    #[arg(long, default_value = "val")]
    val_split: String,
    /// Crops in a training step.
    #[arg(long, default_value_t = 16, value_parser = positive)]
    batch: usize,
    /// Side of the crops in pixels, a multiple of 32.
    #[arg(long, default_value_t = 512)]
    crop: u32,
    /// Write the predicted label maps of one model (with its first seed) into this folder.
    #[arg(long, value_name = "FOLDER")]
    predictions_out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct SegmentationLinearArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    pixels: PixelArgs,
    /// Pixels to a cell of `res5`, by dilation; an ONNX model has its own.
    #[arg(long, default_value_t = OutputStride::Stride8)]
    output_stride: OutputStride,
    /// Training steps.
    #[arg(long, default_value_t = 40_000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The first learning rate.
    #[arg(long, default_value_t = 0.01, value_parser = positive_number)]
    learning_rate: f64,
    /// Schedule of the learning rate.
    #[arg(long, value_enum, default_value_t = Schedule::Poly)]
    schedule: Schedule,
    /// Weight decay.
    #[arg(long, default_value_t = 5e-4)]
    weight_decay: f64,
}

#[derive(Debug, Args)]
struct SegmentationFcnArgs {
    #[command(flatten)]
    common: CommonArgs,
    #[command(flatten)]
    pixels: PixelArgs,
    /// Pixels to a cell of `res5`, by dilation.
    #[arg(long, default_value_t = OutputStride::Stride16)]
    output_stride: OutputStride,
    /// Training steps.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,
    /// The first learning rate.
    #[arg(long, default_value_t = 0.003, value_parser = positive_number)]
    learning_rate: f64,
    /// Schedule of the learning rate.
    #[arg(long, value_enum, default_value_t = Schedule::Steps)]
    schedule: Schedule,
    /// Weight decay.
    #[arg(long, default_value_t = 1e-4)]
    weight_decay: f64,
}

impl EvaluateArgs {
    pub(super) fn run(self) -> Result<String> {
        let (json, report) = match self.task {
            Task::Knn(args) => {
                let KnnArgs { common, folder, k, temperature } = args;
                classification(common, folder, Classifier::NearestNeighbours { k, temperature })?
            }
            Task::Linear(LinearArgs { common, folder }) => classification(common, folder, Classifier::Linear)?,
            Task::SegmentationLinear(args) => {
                let SegmentationLinearArgs { common, pixels, output_stride, .. } = args;
                let training = TrainingOptions {
                    protocol: Protocol::Linear,
                    layer: common.layer.clone(),
                    steps: args.steps,
                    batch: pixels.batch,
                    crop_px: pixels.crop,
                    learning_rate: args.learning_rate,
                    schedule: args.schedule,
                    weight_decay: args.weight_decay,
                };
                segmentation(common, pixels, training, output_stride)?
            }
            Task::SegmentationFcn(args) => {
                let SegmentationFcnArgs { common, pixels, output_stride, .. } = args;
                let training = TrainingOptions {
                    protocol: Protocol::Fcn,
                    layer: common.layer.clone(),
                    steps: args.steps,
                    batch: pixels.batch,
                    crop_px: pixels.crop,
                    learning_rate: args.learning_rate,
                    schedule: args.schedule,
                    weight_decay: args.weight_decay,
                };
                segmentation(common, pixels, training, output_stride)?
            }
        };
        if let Some(path) = json {
            write_json(&path, &report)?;
        }
        Ok(report.text())
    }
}

impl CommonArgs {
    fn comparison(&self, output_stride: OutputStride) -> Result<Comparison> {
        let setup = Setup { output_stride, device: self.device.resolve()? };
        let reading = self.reading.clone().options();
        Ok(Comparison { models: self.models.clone(), reading, seeds: self.seeds.clone(), setup })
    }
}

fn classification(common: CommonArgs, folder: FolderArgs, classifier: Classifier) -> Result<(Option<PathBuf>, Report)> {
    let comparison = common.comparison(OutputStride::Stride32)?;
    let FolderArgs { side, batch, features_out } = folder;
    let batches = ImageBatches { side_px: side, batch };
    let task = Classification { data: common.data, classifier, layer: common.layer, batches, features_out };
    Ok((common.json, classify(&comparison, &task)?))
}

fn segmentation(
    common: CommonArgs,
    pixels: PixelArgs,
    training: TrainingOptions,
    output_stride: OutputStride,
) -> Result<(Option<PathBuf>, Report)> {
    let comparison = common.comparison(output_stride)?;
    let splits = Splits { train: pixels.train_split, val: pixels.val_split };
    let task = Segmentation { data: common.data, splits, training, predictions_out: pixels.predictions_out };
    Ok((common.json, segment(&comparison, &task)?))
}

fn write_json(path: &Path, report: &Report) -> Result<()> {
    atomic_file::write(path, (report.json()? + "\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&count| count > 0).ok_or_else(|| "expected a number from 1 on".to_owned())
}

fn positive_number(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number.filter(|&number| number > 0.0 && number.is_finite()).ok_or_else(|| "expected a number above 0".to_owned())
}
