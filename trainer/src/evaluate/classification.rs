//! Classification of the images of a labelled folder by frozen features.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::data::LabelledFolder;
use super::features::{self, ImageBatches, LabelledFeatures};
use super::linear::{Probe, probe};
use super::model::Model;
use super::table::{Repetition, Report};
use super::{Comparison, compare, knn, name_of};

/// Classifier of the features of a labelled folder.
#[derive(Clone, Debug)]
pub enum Classifier {
    /// Neighbours vote.
    NearestNeighbours {
        /// Numbers of neighbours; each has a column of the table.
        k: Vec<i64>,
        /// Temperature of the weights of votes.
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
    /// The classifier.
    pub classifier: Classifier,
    /// `res2` to `res5`, averaged over their cells, or any other output of an ONNX model.
    pub layer: String,
    /// Size of the images and of the batches.
    pub batches: ImageBatches,
    /// File for the features of a single model with its first seed.
    pub features_out: Option<PathBuf>,
}

impl Classifier {
    /// Name of the task, its description in the report, and the measures.
    fn described(&self) -> (&'static str, String, Vec<String>) {
        match self {
            Self::NearestNeighbours { k, temperature } => {
                let measures = k.iter().map(|k| format!("top-1 % (k = {k})")).collect();
                ("knn", format!("cosine kNN at temperature {temperature}"), measures)
            }
            Self::Linear => {
                let measures = ["top-1 %", "mean class %"].map(str::to_owned).to_vec();
                ("linear", "logistic regression".to_owned(), measures)
            }
        }
    }

    fn settings(&self) -> Value {
        match self {
            Self::NearestNeighbours { k, temperature } => json!({ "k": k, "temperature": temperature }),
            Self::Linear => json!({}),
        }
    }

    fn measure(&self, train: &LabelledFeatures, test: &LabelledFeatures, seed: u64) -> Repetition {
        match self {
            Self::NearestNeighbours { k, temperature } => {
                let accuracy = |&k: &i64| knn::classify(train, test, k, *temperature).accuracy();
                Repetition { seed, measures: k.iter().map(accuracy).collect(), details: json!({}) }
            }
            Self::Linear => {
                let Probe { matrix, weight_decay } = probe(train, test, seed);
                let measures = vec![matrix.accuracy(), matrix.mean_class_accuracy()];
                Repetition { seed, measures, details: json!({ "weight_decay": weight_decay }) }
            }
        }
    }
}

/// Classifies the images of a labelled folder by the features of each model.
///
/// # Errors
/// If the data or a model cannot be used.
pub fn classify(comparison: &Comparison, task: &Classification) -> Result<Report> {
    let folder = LabelledFolder::open(&task.data)?;
    let (train, test) = folder.split(0)?;
    let (train, test) = (train.paths.len(), test.paths.len());
    if let Classifier::NearestNeighbours { k, .. } = &task.classifier {
        let wrong = k.iter().find(|&&k| !(1..=train as i64).contains(&k));
        ensure!(wrong.is_none(), "--k: expected 1 to {train}, the number of training images; found {k:?}");
    }
    let mut unsaved = task.features_out.as_deref();
    let mut last: Option<(usize, [LabelledFeatures; 2])> = None;
    let rows = compare(comparison, unsaved, |number, model, seed| {
        // Trained weights have the same features for every seed, unless it draws the images.
        let is_reusable = |of: &(usize, _)| of.0 == number && !model.is_random() && !folder.is_drawn();
        let features = match last.take().filter(is_reusable) {
            Some((_, features)) => features,
            None => extract(model, &folder, task, seed, comparison)?,
        };
        let [train, test] = &features;
        if let Some(path) = unsaved.take() {
            features::write(path, train, test)?;
        }
        let repetition = task.classifier.measure(train, test, seed);
        last = Some((number, features));
        Ok(repetition)
    })?;
    let (name, by, measures) = task.classifier.described();
    let Classification { data, layer, batches: ImageBatches { side_px, .. }, .. } = task;
    let drawn = if folder.is_drawn() { "; drawn by the seed, as there is no val/" } else { "" };
    Ok(Report {
        task: name,
        description: format!(
            "{}: {train} training and {test} test images, {} classes{drawn}. Mean of {layer} at {side_px} px; {by}.",
            name_of(data),
            folder.classes.len(),
        ),
        settings: json!({
            "layer": layer,
            "side_px": side_px,
            "classes": folder.classes,
            "is_drawn": folder.is_drawn(),
            "classifier": task.classifier.settings(),
        }),
        measures,
        rows,
    })
}

fn extract(
    model: &Model,
    folder: &LabelledFolder,
    task: &Classification,
    seed: u64,
    comparison: &Comparison,
) -> Result<[LabelledFeatures; 2]> {
    let (train, test) = folder.split(seed)?;
    let mut network = model.frozen(&task.layer, seed, comparison.setup)?;
    let mut features = |files| LabelledFeatures::extract(&mut network, files, folder.classes.len(), task.batches);
    Ok([features(&train)?, features(&test)?])
}
