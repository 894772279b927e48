//! What features are worth: trained networks, ONNX models and random weights compared on labelled
//! data, each with several seeds.
//!
//! A *task* says how one model is measured once; [`compare`] repeats it over models and seeds and
//! makes a table. Everything random is drawn from the seed, so that a command repeated on a CPU
//! gives the same numbers; and every model sees the same draws.
//!
//! What is not done here: detection, which is judged by other people's programs (`tests/transfer`),
//! and matching, which is measured through the server.

pub mod data;
mod features;
mod knn;
mod lbfgs;
mod linear;
mod metrics;
mod model;
mod segmentation;
mod table;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;

pub use features::{ImageBatches, LabelledFeatures};
pub use linear::{Probe, probe};
pub use metrics::{ConfusionMatrix, VOID};
pub use model::{FrozenNetwork, Model, ModelSource, Setup, TorchNetwork};
pub use segmentation::{Protocol, Schedule, TrainingOptions};
pub use table::{Repetition, Report, Row, Spread};

use data::{LabelledFolder, Part, SegmentationSet, Splits};

/// Which models are measured how often.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The models, one row each.
    pub models: Vec<ModelSource>,
    /// A repetition each.
    pub seeds: Vec<u64>,
    /// How networks are set up.
    pub setup: Setup,
}

/// What is done with the features of a labelled folder.
#[derive(Clone, Debug)]
pub enum Classifier {
    /// Neighbours vote.
    NearestNeighbours {
        /// How many; a column of the table each.
        k: Vec<i64>,
        /// Of the votes' weights.
        temperature: f64,
    },
    /// Logistic regression.
    Linear,
}

/// A classification task.
#[derive(Clone, Debug)]
pub struct Classification {
    /// The labelled folder.
    pub data: PathBuf,
    /// What is done with the features.
    pub classifier: Classifier,
    /// `res2` to `res5`, averaged over their cells, or any other output of an ONNX model.
    pub layer: String,
    /// How images go through the network.
    pub batches: ImageBatches,
    /// Where to write the features of the one model and its first seed.
    pub features_out: Option<PathBuf>,
}

/// A segmentation task.
#[derive(Clone, Debug)]
pub struct Segmentation {
    /// A folder in the layout of VOC or Cityscapes.
    pub data: PathBuf,
    /// Its lists of images.
    pub splits: Splits,
    /// What is trained, and how.
    pub training: TrainingOptions,
    /// Where to write the predictions of the one model and its first seed.
    pub predictions_out: Option<PathBuf>,
}

/// Classifies the images of a labelled folder by the features of each model.
///
/// # Errors
/// If the data or a model cannot be used.
pub fn classify(comparison: &Comparison, task: &Classification) -> Result<Report> {
    let folder = LabelledFolder::open(&task.data)?;
    let (train, test) = folder.split(comparison.seeds[0])?;
    let (classes, side) = (folder.classes.len(), task.batches.side_px);
    let mut description = format!(
        "{}: {} training and {} test images of {classes} classes{}. {} features, {side} px",
        name_of(&task.data),
        train.paths.len(),
        test.paths.len(),
        if folder.is_drawn() { ", drawn by the seed, as there is no val/" } else { "" },
        task.layer,
    );
    let (task_name, measures, settings) = match &task.classifier {
        Classifier::NearestNeighbours { k, temperature } => {
            for &k in k {
                let count = train.paths.len();
                ensure!((1..=count as i64).contains(&k), "--k {k}: there are {count} training images");
            }
            description += &format!(", cosine kNN, temperature {temperature}.");
            let measures = k.iter().map(|k| format!("top-1 % (k = {k})")).collect();
            ("knn", measures, json!({ "k": k, "temperature": temperature }))
        }
        Classifier::Linear => {
            description += ", logistic regression.";
            ("linear", vec!["top-1 %".to_owned(), "mean class %".to_owned()], json!({}))
        }
    };
    let mut last: Option<(usize, u64, [LabelledFeatures; 2])> = None;
    let mut unsaved = task.features_out.as_deref();
    let rows = compare(comparison, unsaved, |number, model, seed| {
        // The features of trained weights are the same for every seed, unless it draws the images.
        let reusable = |of: &(usize, u64, _)| of.0 == number && !model.is_random() && !folder.is_drawn();
        let features = match last.take().filter(reusable) {
            Some((.., features)) => features,
            None => extract(model, &folder, task, seed, comparison.setup)?,
        };
        let [train, test] = &features;
        if let Some(path) = unsaved.take() {
            features::write(path, train, test)?;
        }
        let repetition = match &task.classifier {
            Classifier::NearestNeighbours { k, temperature } => {
                let accuracy = |&k: &i64| knn::classify(train, test, k, *temperature).accuracy();
                Repetition { seed, measures: k.iter().map(accuracy).collect(), details: json!({}) }
            }
            Classifier::Linear => {
                let Probe { matrix, weight_decay } = probe(train, test, seed);
                let measures = vec![matrix.accuracy(), matrix.mean_class_accuracy()];
                Repetition { seed, measures, details: json!({ "weight_decay": weight_decay }) }
            }
        };
        last = Some((number, seed, features));
        Ok(repetition)
    })?;
    let images = json!({ "layer": task.layer, "side_px": side, "classes": folder.classes, "is_drawn": folder.is_drawn() });
    Ok(Report { task: task_name, description, settings: json!({ "images": images, "classifier": settings }), measures, rows })
}

fn extract(
    model: &Model,
    folder: &LabelledFolder,
    task: &Classification,
    seed: u64,
    setup: Setup,
) -> Result<[LabelledFeatures; 2]> {
    let (train, test) = folder.split(seed)?;
    let mut network = model.frozen(&task.layer, seed, setup)?;
    let mut features = |files| LabelledFeatures::extract(&mut network, files, folder.classes.len(), task.batches);
    Ok([features(&train)?, features(&test)?])
}

/// Trains a segmentation head on each model, and tests it.
///
/// # Errors
/// If the data or a model cannot be used, or a training diverges.
pub fn segment(comparison: &Comparison, task: &Segmentation) -> Result<Report> {
    let set = Arc::new(SegmentationSet::open(&task.data, &task.splits)?);
    if let Some(folder) = &task.predictions_out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut predictions = task.predictions_out.as_deref();
    let rows = compare(comparison, task.predictions_out.as_deref(), |_, model, seed| {
        let repetition = segmentation::Repetition { seed, setup: comparison.setup, predictions: predictions.take() };
        let matrix = segmentation::evaluate(model, &set, &task.training, repetition)?;
        let ious = set.classes.iter().cloned().zip(matrix.ious()).map(|(class, iou)| (class, json!(iou)));
        Ok(Repetition {
            seed,
            measures: vec![matrix.mean_iou(), matrix.accuracy(), matrix.mean_class_accuracy()],
            details: json!({ "iou": ious.collect::<serde_json::Map<_, _>>() }),
        })
    })?;
    let TrainingOptions { protocol, steps, batch, crop_px, .. } = &task.training;
    let (task_name, trained) = match protocol {
        Protocol::Linear => ("segmentation-linear", "a 1x1 convolution on frozen"),
        Protocol::Fcn => ("segmentation-fcn", "an FCN, fine-tuned with the backbone, on"),
    };
    let description = format!(
        "{} ({} layout): {} training and {} test images of {} classes. {trained} {} at stride {}, {steps} steps of {batch} \
         crops of {crop_px} px.",
        name_of(&task.data),
        set.layout,
        set.len(Part::Train),
        set.len(Part::Val),
        set.classes.len(),
        task.training.layer,
        comparison.setup.output_stride,
    );
    let settings = json!({
        "training": task.training,
        "output_stride": comparison.setup.output_stride.pixels(),
        "splits": [task.splits.train, task.splits.val],
    });
    let measures = ["mIoU %", "pixel %", "mean class %"].map(str::to_owned).to_vec();
    Ok(Report { task: task_name, description, settings, measures, rows })
}

/// Runs `measure` with the number and the model of each row and with each seed. `written` is a file
/// that only the first repetition would write.
fn compare(
    comparison: &Comparison,
    written: Option<&Path>,
    mut measure: impl FnMut(usize, &Model, u64) -> Result<Repetition>,
) -> Result<Vec<Row>> {
    if let Some(path) = written {
        let models = comparison.models.len();
        ensure!(models == 1, "{} can hold what one model makes; there are {models}", path.display());
    }
    let mut rows = Vec::new();
    for (number, model) in Model::open_all(&comparison.models)?.iter().enumerate() {
        let mut repetitions = Vec::new();
        for &seed in &comparison.seeds {
            tracing::info!(model = model.name, seed, "evaluating");
            let repetition = measure(number, model, seed).with_context(|| format!("{} was not evaluated", model.name))?;
            repetitions.push(repetition);
        }
        let (model, method, architecture) = (model.name.clone(), model.method.clone(), model.architecture());
        rows.push(Row { model, method, architecture, repetitions });
    }
    Ok(rows)
}

fn name_of(data: &Path) -> String {
    let resolved = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    resolved.file_name().unwrap_or(resolved.as_os_str()).to_string_lossy().into_owned()
}
