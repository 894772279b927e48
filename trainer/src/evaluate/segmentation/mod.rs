//! Semantic segmentation: a head on the backbone's map, trained on random crops, tested on whole
//! images.
//!
//! Two protocols share everything but what is trained: the *linear* one trains a 1×1 convolution on
//! frozen features, the *FCN* one two dilated convolutions before it and the whole backbone with
//! them (He et al., arXiv 1911.05722, appendix A.4). Images are drawn at half to twice their size,
//! cropped and flipped; scores are brought to the labels' size by bilinear interpolation, in
//! training as in testing. Pixels of [`super::VOID`] count nowhere.

mod crops;
mod head;
mod network;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use densecl_models::geometry::CELL_MULTIPLE_PX;
use serde::Serialize;
use serde_json::json;

use self::network::SegmentationNetwork;
use super::data::{DataSplit, SegmentationSet, Splits};
use super::table::{Repetition, Report};
use super::{Comparison, compare, name_of};

/// Parts of the network that are trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A 1×1 convolution on frozen features.
    Linear,
    /// A fully convolutional head and the backbone.
    Fcn,
}

/// Schedule of the learning rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// By `(1 − step / steps)^0.9`.
    Poly,
    /// To a tenth at 70 % and at 90 % of the steps.
    Steps,
}

impl Schedule {
    fn rate(self, base: f64, step: u64, steps: u64) -> f64 {
        let progress = step as f64 / steps as f64;
        match self {
            Self::Poly => base * (1.0 - progress).powf(0.9),
            Self::Steps => base * [1.0, 0.1, 0.01][usize::from(progress >= 0.7) + usize::from(progress >= 0.9)],
        }
    }
}

/// Options of the training.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingOptions {
    /// Parts of the network that are trained.
    pub protocol: Protocol,
    /// The map that the head stands on: `res2` to `res5`, or an output of an ONNX model.
    pub layer: String,
    /// Optimiser steps.
    pub steps: u64,
    /// Crops in a step.
    pub batch: usize,
    /// Side of a crop, a multiple of 32.
    pub crop_px: u32,
    /// The first learning rate.
    pub learning_rate: f64,
    /// Its schedule.
    pub schedule: Schedule,
    /// Decay of every parameter that is trained.
    pub weight_decay: f64,
}

/// A segmentation task.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// A folder in the layout of VOC or Cityscapes.
    pub data: PathBuf,
    /// Its lists of images.
    pub splits: Splits,
    /// Options of the training.
    pub training: TrainingOptions,
    /// Folder for the predictions of a single model with its first seed.
    pub predictions_out: Option<PathBuf>,
}

/// Trains a segmentation head on each model, and tests it.
///
/// # Errors
/// If the data or a model cannot be used, or a training diverges.
pub fn segment(comparison: &Comparison, task: &Segmentation) -> Result<Report> {
    let options = &task.training;
    ensure!(
        options.crop_px > 0 && options.crop_px.is_multiple_of(CELL_MULTIPLE_PX),
        "--crop {}: expected a multiple of {CELL_MULTIPLE_PX}",
        options.crop_px
    );
    let set = Arc::new(SegmentationSet::open(&task.data, &task.splits)?);
    if let Some(folder) = &task.predictions_out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut predictions = task.predictions_out.as_deref();
    let rows = compare(comparison, predictions, |_, model, seed| {
        let mut network = SegmentationNetwork::new(model, set.classes.len(), options, seed, comparison.setup)?;
        network.train(&set, options, seed)?;
        let matrix = network.test(&set, predictions.take())?;
        let ious = set.classes.iter().cloned().zip(matrix.ious()).map(|(class, iou)| (class, json!(iou)));
        Ok(Repetition {
            seed,
            measures: vec![matrix.mean_iou(), matrix.accuracy(), matrix.mean_class_accuracy()],
            details: json!({ "iou": ious.collect::<serde_json::Map<_, _>>() }),
        })
    })?;
    let stride = comparison.setup.output_stride.pixels();
    Ok(Report {
        task: match options.protocol {
            Protocol::Linear => "segmentation-linear",
            Protocol::Fcn => "segmentation-fcn",
        },
        description: describe(&set, task, stride),
        settings: json!({
            "training": options,
            "output_stride": stride,
            "splits": { "train": task.splits.train, "val": task.splits.val },
        }),
        measures: ["mIoU %", "pixel %", "mean class %"].map(str::to_owned).to_vec(),
        rows,
    })
}

fn describe(set: &SegmentationSet, task: &Segmentation, stride: u32) -> String {
    let TrainingOptions { protocol, layer, steps, batch, crop_px, .. } = &task.training;
    let trained = match protocol {
        Protocol::Linear => format!("A 1x1 convolution on frozen {layer} at stride {stride}"),
        Protocol::Fcn => format!("An FCN on {layer} at stride {stride}, the backbone fine-tuned with it"),
    };
    format!(
        "{} ({} layout): {} training and {} test images, {} classes. {trained}; {steps} steps of {batch} crops of \
         {crop_px} px.",
        name_of(&task.data),
        set.layout,
        set.len(DataSplit::Train),
        set.len(DataSplit::Val),
        set.classes.len(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_falls_as_the_schedules_say() {
        let poly = |step| Schedule::Poly.rate(0.01, step, 100);
        assert!((poly(0) - 0.01).abs() < 1e-15 && (poly(50) - 0.01 * 0.5_f64.powf(0.9)).abs() < 1e-15);
        let steps = [0, 69, 70, 89, 90].map(|step| Schedule::Steps.rate(1.0, step, 100));
        assert!(steps.iter().zip([1.0, 1.0, 0.1, 0.1, 0.01]).all(|(a, b)| (a - b).abs() < 1e-15), "{steps:?}");
    }
}
