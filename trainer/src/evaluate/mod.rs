//! Evaluation of features: trained networks, ONNX models and random weights are compared on labelled
//! data, each with several seeds.
//!
//! A *task* measures one model once; `compare` repeats it over models and seeds and
//! makes a table. Everything random is drawn from the seed, so that a command repeated on a CPU
//! gives the same numbers; and every model sees the same draws.
//!
//! Not here: detection, which established programs evaluate (`tests/transfer`), and matching, which
//! is evaluated through the server.

mod classification;
pub mod data;
mod features;
mod knn;
mod lbfgs;
mod linear;
mod metrics;
mod model;
mod segmentation;
mod table;

use std::path::Path;

use anyhow::{Context, Result, ensure};

pub use classification::{Classification, Classifier, classify};
pub use features::{ImageBatches, LabelledFeatures};
pub use linear::{Probe, probe};
pub use metrics::{ConfusionMatrix, VOID};
pub use model::{FrozenNetwork, Model, ModelSource, Setup, TorchNetwork};
pub use segmentation::{Protocol, Schedule, Segmentation, TrainingOptions, segment};
pub use table::{Repetition, Report, ReportRow, Spread};

use crate::pretrained::ReadOptions;

/// The models of an evaluation and their seeds.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The models, one row each.
    pub models: Vec<ModelSource>,
    /// Selection of weights from other tools' files.
    pub reading: ReadOptions,
    /// A repetition each.
    pub seeds: Vec<u64>,
    /// Output stride and device.
    pub setup: Setup,
}

/// Runs `measure` with the index and the model of each row and with each seed. `written` is a file
/// that only the first repetition writes.
fn compare(
    comparison: &Comparison,
    written: Option<&Path>,
    mut measure: impl FnMut(usize, &Model, u64) -> Result<Repetition>,
) -> Result<Vec<ReportRow>> {
    if let Some(path) = written {
        let models = comparison.models.len();
        ensure!(models == 1, "{} can hold what one model makes; there are {models}", path.display());
    }
    let mut rows = Vec::new();
    for (number, model) in Model::open_all(&comparison.models, &comparison.reading)?.iter().enumerate() {
        let mut repetitions = Vec::new();
        for &seed in &comparison.seeds {
            tracing::info!(model = model.name, seed, "evaluating");
            let repetition =
                measure(number, model, seed).with_context(|| format!("{} was not evaluated", model.name))?;
            repetitions.push(repetition);
        }
        let (model, method, architecture) = (model.name.clone(), model.method.clone(), model.architecture());
        rows.push(ReportRow { model, method, architecture, repetitions });
    }
    Ok(rows)
}

fn name_of(data: &Path) -> String {
    let resolved = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    resolved.file_name().unwrap_or(resolved.as_os_str()).to_string_lossy().into_owned()
}
