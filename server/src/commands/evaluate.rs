//! `evaluate`: measures correspondences against exact truth, with the feature extraction of the server.

use std::fs;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use densecl_evaluation::{
    Dataset, EvaluationOptions, FeatureMethod, FeatureMethodError, MethodKind, MethodResult, Picture, Report,
    ReportRow, RgbPatches, Sift, SiftError, measure, page, text_table,
};
use densecl_inference::batch::Batcher;
use densecl_inference::registry::Registry;
use densecl_models::{OnnxModel, repository, with_random_weights};
use densecl_server::cli::{Baseline, EvaluateArgs, Flip, LogFormat, OutputFormat};
use densecl_server::metrics::Metrics;
use densecl_server::serving::FeatureExtractor;
use densecl_vision::features::{FeatureMap, flip_average};
use densecl_vision::image::RgbImage;
use densecl_vision::matching::{Refinement, SoftArgmax};

use super::output::{print, start_log};

pub(crate) fn evaluate(arguments: &EvaluateArgs) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    // First, so that errors of the data are reported before a model is loaded.
    let dataset = Dataset::open(&arguments.data, &arguments.selection())?;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads()).build()?;
    let report = pool.install(|| Evaluation::start(arguments, &dataset)?.run())?;
    if let Some(folder) = &arguments.out {
        let write = |name: &str, text: String| {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
        };
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write("report.json", serde_json::to_string_pretty(&report)?)?;
        write("index.html", page(&report)?)?;
    }
    match arguments.format {
        OutputFormat::Json => print(&serde_json::to_string_pretty(&report)?),
        OutputFormat::Text => print(text_table(&report).trim_end()),
    }
}

/// Evaluation of several models and baselines on one data set.
struct Evaluation<'a> {
    arguments: &'a EvaluateArgs,
    dataset: &'a Dataset,
    batcher: Batcher,
    registry: Registry,
}

/// One combination of flags: how features are computed and matched.
#[derive(Clone, Copy)]
struct Variant<'a> {
    layer: Option<&'a str>,
    side_px: Option<u32>,
    flip: Flip,
    options: EvaluationOptions,
}

impl<'a> Evaluation<'a> {
    fn start(arguments: &'a EvaluateArgs, dataset: &'a Dataset) -> anyhow::Result<Self> {
        let batcher = Batcher::start(&arguments.batcher(), &Metrics::new().batch)?;
        let registry = Registry::open(&arguments.repository.models, batcher.clone(), &[])?;
        Ok(Self { arguments, dataset, batcher, registry })
    }

    fn run(&self) -> anyhow::Result<Report> {
        let mut report = Report::new(self.dataset, self.arguments.threads());
        let variants = self.variants();
        for variant in &variants {
            report.rows.push(self.model(variant)?);
        }
        let first = variants.first().context("there is always a combination of flags")?;
        for baseline in &self.arguments.baseline {
            let row = match baseline {
                Baseline::Random => self.random(first),
                Baseline::Rgb => self.patches(first),
                Baseline::Sift => self.sift(first),
            };
            report.rows.push(row.with_context(|| format!("the baseline {baseline:?} was not evaluated"))?);
        }
        Ok(report)
    }

    /// Every combination of the flags' values.
    fn variants(&self) -> Vec<Variant<'_>> {
        let arguments = self.arguments;
        let layers = optional(arguments.layer.iter().map(String::as_str));
        let sides = optional(arguments.side.iter().copied());
        let mut variants = Vec::new();
        for &layer in &layers {
            for &side_px in &sides {
                for &flip in &arguments.flip {
                    let variant = |options| Variant { layer, side_px, flip, options };
                    variants.extend(self.refinements().into_iter().map(variant));
                }
            }
        }
        variants
    }

    fn refinements(&self) -> Vec<EvaluationOptions> {
        let mut refinements: Vec<EvaluationOptions> = Vec::new();
        for &refine in &self.arguments.refine {
            for &window in &self.arguments.refine_window {
                for &temperature_share in &self.arguments.refine_temperature {
                    let soft_argmax = SoftArgmax { window, temperature_share };
                    let options =
                        EvaluationOptions { refine: refine.into(), soft_argmax, ..EvaluationOptions::default() };
                    // Without refinement, window and temperature make no difference.
                    if options.refine != Refinement::None
                        || refinements.iter().all(|one| one.refine != Refinement::None)
                    {
                        refinements.push(options);
                    }
                }
            }
        }
        refinements
    }

    fn model(&self, variant: &Variant<'_>) -> anyhow::Result<ReportRow> {
        let mut model = Model::new(&self.registry, self.arguments.model.as_deref(), variant)?;
        let measured = self.measure(&mut model, &variant.options).context("the model was not evaluated")?;
        self.row(model.name, MethodKind::Model, vec![measured])
    }

    /// Evaluates the same graph with random weights, from a repository of its own.
    fn random(&self, variant: &Variant<'_>) -> anyhow::Result<ReportRow> {
        let served = self.registry.find(self.arguments.model.as_deref(), None)?;
        let found = repository::scan(&self.arguments.repository.models)?;
        let found = found.iter().find(|found| found.name == served.name() && found.version == served.version());
        let original = OnnxModel::open(&found.context("the model is gone")?.path)?;
        let mut runs = Vec::new();
        let mut name = String::new();
        for seed in 0..self.arguments.seeds.get() as u64 {
            let folder = tempfile::tempdir()?;
            let version = folder.path().join(served.name()).join("1");
            with_random_weights(&original, seed)?.save(&version.join("model.onnx"))?;
            let registry = Registry::open(folder.path(), self.batcher.clone(), &[])?;
            let mut model = Model::new(&registry, None, variant)?;
            name = format!("random weights, {}", model.description);
            model.name = format!("{name}, seed {seed}");
            runs.push(self.measure(&mut model, &variant.options)?);
        }
        self.row(name, MethodKind::Random, runs)
    }

    /// Evaluates raw patches, on as many cells as the model has.
    fn patches(&self, variant: &Variant<'_>) -> anyhow::Result<ReportRow> {
        let extractor = self.extractor(variant)?;
        let mut patches = RgbPatches::new(extractor.side_px(), extractor.stride_px());
        let measured = self.measure(&mut patches, &variant.options)?;
        self.row(patches.name().to_owned(), MethodKind::Rgb, vec![measured])
    }

    fn sift(&self, variant: &Variant<'_>) -> anyhow::Result<ReportRow> {
        let extractor = self.extractor(variant)?;
        let started = Sift::start(&self.arguments.python, extractor.side_px(), extractor.stride_px());
        let mut sift = match started {
            Ok(sift) => sift,
            // A missing SIFT does not stop the rest of the evaluation.
            Err(error @ (SiftError::NotStarted { .. } | SiftError::Refused(_))) => {
                return Ok(ReportRow::absent("SIFT".to_owned(), MethodKind::Sift, error.to_string()));
            }
            Err(error @ (SiftError::Broken(_) | SiftError::Descriptors(_))) => return Err(error.into()),
        };
        let measured = self.measure(&mut sift, &variant.options)?;
        self.row(sift.name().to_owned(), MethodKind::Sift, vec![measured])
    }

    fn extractor(&self, variant: &Variant<'_>) -> anyhow::Result<FeatureExtractor> {
        let model = self.arguments.model.as_deref();
        Ok(FeatureExtractor::new(&self.registry, model, variant.layer, variant.side_px)?)
    }

    fn measure(&self, method: &mut dyn FeatureMethod, options: &EvaluationOptions) -> anyhow::Result<MethodResult> {
        let progress = Progress { name: method.name().to_owned(), total: self.dataset.pairs() };
        Ok(measure(self.dataset, method, options, &mut |done| progress.show(done))?)
    }

    fn row(&self, name: String, kind: MethodKind, runs: Vec<MethodResult>) -> anyhow::Result<ReportRow> {
        ReportRow::new(name, kind, self.dataset.layout(), runs).context("nothing was measured")
    }
}

/// The values, or a single `None` if there are none.
fn optional<T>(values: impl Iterator<Item = T>) -> Vec<Option<T>> {
    let mut values: Vec<Option<T>> = values.map(Some).collect();
    if values.is_empty() {
        values.push(None);
    }
    values
}

/// A served model with a variant.
struct Model {
    name: String,
    description: String,
    extractor: FeatureExtractor,
    flip: Flip,
}

impl Model {
    fn new(registry: &Registry, model: Option<&str>, variant: &Variant<'_>) -> anyhow::Result<Self> {
        let extractor = FeatureExtractor::new(registry, model, variant.layer, variant.side_px)?;
        let description = describe_variant(&extractor, variant);
        let model = extractor.model();
        let name = format!("{}/{} {description}", model.name(), model.version());
        Ok(Self { name, description, flip: variant.flip, extractor })
    }
}

impl FeatureMethod for Model {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError> {
        let extract = |image: &RgbImage| self.extractor.extract(image);
        let map = extract(&picture.image)?;
        match self.flip {
            Flip::Off => Ok(map),
            Flip::On => {
                let mirrored = densecl_vision::image::mirrored(&picture.image);
                Ok(flip_average(map, &extract(&mirrored)?))
            }
        }
    }
}

/// Describes a variant; settings of the server's default are left out.
fn describe_variant(extractor: &FeatureExtractor, variant: &Variant<'_>) -> String {
    let mut parts = vec![format!("{} at {} px", extractor.layer_name(), extractor.side_px())];
    if variant.flip == Flip::On {
        parts.push("flip".to_owned());
    }
    let (chosen, default) = (variant.options.soft_argmax, SoftArgmax::default());
    if variant.options.refine == Refinement::None {
        parts.push("no refinement".to_owned());
    } else {
        if chosen.window != default.window {
            parts.push(format!("window {}", chosen.window));
        }
        if chosen.temperature_share.to_bits() != default.temperature_share.to_bits() {
            parts.push(format!("temperature {}", chosen.temperature_share));
        }
    }
    parts.join(", ")
}

/// Progress on standard error, if that is a terminal.
struct Progress {
    name: String,
    total: usize,
}

impl Progress {
    fn show(&self, done: usize) {
        let mut terminal = io::stderr();
        if terminal.is_terminal() {
            let end = if done == self.total { "\n" } else { "" };
            // An error of the terminal must not stop the evaluation.
            let _ = write!(terminal, "\r{}: {done} of {} pairs{end}", self.name, self.total);
        }
    }
}
