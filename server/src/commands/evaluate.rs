//! `evaluate`: measures correspondences against exact truth, through the path that serves.

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
use densecl_server::http::FeatureExtractor;
use densecl_server::metrics::Metrics;
use densecl_vision::features::{FeatureMap, flip_average};
use densecl_vision::image::RgbImage;
use densecl_vision::matching::{Refinement, SoftArgmax};

use super::output::{print, start_log};

pub(crate) fn evaluate(arguments: &EvaluateArgs) -> anyhow::Result<()> {
    start_log(LogFormat::Text, "warn");
    // What is wrong with the data is said before a model is loaded.
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

/// Contestants on one data set.
struct Evaluation<'a> {
    arguments: &'a EvaluateArgs,
    dataset: &'a Dataset,
    batcher: Batcher,
    registry: Registry,
}

/// One way to compute and match features.
#[derive(Clone, Copy)]
struct Recipe<'a> {
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
        let recipes = self.recipes();
        for recipe in &recipes {
            report.rows.push(self.model(recipe)?);
        }
        let first = recipes.first().context("there is always a combination of flags")?;
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

    /// Every combination of what the flags allow.
    fn recipes(&self) -> Vec<Recipe<'_>> {
        let arguments = self.arguments;
        let layers = optional(arguments.layer.iter().map(String::as_str));
        let sides = optional(arguments.side.iter().copied());
        let mut recipes = Vec::new();
        for &layer in &layers {
            for &side_px in &sides {
                for &flip in &arguments.flip {
                    let recipe = |options| Recipe { layer, side_px, flip, options };
                    recipes.extend(self.refinements().into_iter().map(recipe));
                }
            }
        }
        recipes
    }

    fn refinements(&self) -> Vec<EvaluationOptions> {
        let mut refinements: Vec<EvaluationOptions> = Vec::new();
        for &refine in &self.arguments.refine {
            for &window in &self.arguments.refine_window {
                for &temperature_share in &self.arguments.refine_temperature {
                    let soft_argmax = SoftArgmax { window, temperature_share };
                    let options =
                        EvaluationOptions { refine: refine.into(), soft_argmax, ..EvaluationOptions::default() };
                    // Without refinement there is one way only.
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

    fn model(&self, recipe: &Recipe<'_>) -> anyhow::Result<ReportRow> {
        let mut model = Model::new(&self.registry, self.arguments.model.as_deref(), recipe)?;
        let measured = self.measure(&mut model, &recipe.options).context("the model was not evaluated")?;
        self.row(model.name, MethodKind::Model, vec![measured])
    }

    /// The same graph with other weights, from a repository of its own.
    fn random(&self, recipe: &Recipe<'_>) -> anyhow::Result<ReportRow> {
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
            let mut model = Model::new(&registry, None, recipe)?;
            name = format!("random weights, {}", model.recipe);
            model.name = format!("{name}, seed {seed}");
            runs.push(self.measure(&mut model, &recipe.options)?);
        }
        self.row(name, MethodKind::Random, runs)
    }

    /// On as many cells as the model has.
    fn patches(&self, recipe: &Recipe<'_>) -> anyhow::Result<ReportRow> {
        let extractor = self.extractor(recipe)?;
        let mut patches = RgbPatches::new(extractor.side_px(), extractor.stride_px());
        let measured = self.measure(&mut patches, &recipe.options)?;
        self.row(patches.name().to_owned(), MethodKind::Rgb, vec![measured])
    }

    fn sift(&self, recipe: &Recipe<'_>) -> anyhow::Result<ReportRow> {
        let extractor = self.extractor(recipe)?;
        let started = Sift::start(&self.arguments.python, extractor.side_px(), extractor.stride_px());
        let mut sift = match started {
            Ok(sift) => sift,
            // Whoever asks for everything wants the rest.
            Err(error @ (SiftError::NotStarted { .. } | SiftError::Refused(_))) => {
                return Ok(ReportRow::absent("SIFT".to_owned(), MethodKind::Sift, error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let measured = self.measure(&mut sift, &recipe.options)?;
        self.row(sift.name().to_owned(), MethodKind::Sift, vec![measured])
    }

    fn extractor(&self, recipe: &Recipe<'_>) -> anyhow::Result<FeatureExtractor> {
        let model = self.arguments.model.as_deref();
        Ok(FeatureExtractor::new(&self.registry, model, recipe.layer, recipe.side_px)?)
    }

    fn measure(&self, method: &mut dyn FeatureMethod, options: &EvaluationOptions) -> anyhow::Result<MethodResult> {
        let progress = Progress { name: method.name().to_owned(), of: self.dataset.pairs() };
        Ok(measure(self.dataset, method, options, &mut |done| progress.show(done))?)
    }

    fn row(&self, name: String, kind: MethodKind, runs: Vec<MethodResult>) -> anyhow::Result<ReportRow> {
        ReportRow::new(name, kind, self.dataset.layout(), runs).context("nothing was measured")
    }
}

/// The values, or once nothing if there are none.
fn optional<T>(values: impl Iterator<Item = T>) -> Vec<Option<T>> {
    let mut values: Vec<Option<T>> = values.map(Some).collect();
    if values.is_empty() {
        values.push(None);
    }
    values
}

/// A served model by a recipe.
struct Model {
    name: String,
    recipe: String,
    extractor: FeatureExtractor,
    flip: Flip,
}

impl Model {
    fn new(registry: &Registry, model: Option<&str>, recipe: &Recipe<'_>) -> anyhow::Result<Self> {
        let extractor = FeatureExtractor::new(registry, model, recipe.layer, recipe.side_px)?;
        let described = described(&extractor, recipe);
        let model = extractor.model();
        let name = format!("{}/{} {described}", model.name(), model.version());
        Ok(Self { name, recipe: described, flip: recipe.flip, extractor })
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

/// What differs from what the server does is said.
fn described(extractor: &FeatureExtractor, recipe: &Recipe<'_>) -> String {
    let mut parts = vec![format!("{} at {} px", extractor.layer_name(), extractor.side_px())];
    if recipe.flip == Flip::On {
        parts.push("flip".to_owned());
    }
    let (asked, usual) = (recipe.options.soft_argmax, SoftArgmax::default());
    if recipe.options.refine == Refinement::None {
        parts.push("no refinement".to_owned());
    } else {
        if asked.window != usual.window {
            parts.push(format!("window {}", asked.window));
        }
        if asked.temperature_share.to_bits() != usual.temperature_share.to_bits() {
            parts.push(format!("temperature {}", asked.temperature_share));
        }
    }
    parts.join(", ")
}

/// A line on standard error, where that is a terminal.
struct Progress {
    name: String,
    of: usize,
}

impl Progress {
    fn show(&self, done: usize) {
        let mut terminal = io::stderr();
        if terminal.is_terminal() {
            let end = if done == self.of { "\n" } else { "" };
            // Progress that cannot be shown is not missed.
            let _ = write!(terminal, "\r{}: {done} of {} pairs{end}", self.name, self.of);
        }
    }
}
