//! The training loop.
//!
//! Everything random about step i is drawn from a generator seeded by the run's seed and i, so a
//! run that goes on from a checkpoint takes the steps that an undisturbed one would have taken.

mod trainer;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use tch::{Device, Tensor};

use crate::checkpoint::{self, Checkpoint};
use crate::config::Config;
use crate::data::procedural::ProceduralImages;
use crate::data::{ImageFolder, ImageSource, Loader, LoaderOptions};
use crate::densecl::StepOutput;

pub use trainer::Trainer;

/// A run to start or to go on with.
#[derive(Debug)]
pub struct Run {
    /// Its configuration.
    pub config: Config,
    /// Its folder.
    pub out: PathBuf,
    /// Whether to go on from the newest checkpoint in it.
    pub resume: bool,
    /// Where tensors live.
    pub device: Device,
}

/// A line of progress, also written to `metrics.jsonl`.
#[derive(Debug, Serialize)]
struct Metrics {
    step: u64,
    epoch: f64,
    loss: f64,
    loss_global: f64,
    loss_dense: Option<f64>,
    global_top1: f64,
    dense_top1: Option<f64>,
    embedding_std: f64,
    learning_rate: f64,
    pairs_per_second: f64,
    /// Share of the time spent waiting for images, in percent.
    data_wait: f64,
    skipped_images: u64,
}

/// Trains to the end of the schedule; returns the last checkpoint's folder.
///
/// # Errors
/// If the data cannot be read, the loss stops being a number, or a file cannot be written.
pub fn pretrain(run: &Run) -> Result<PathBuf> {
    let Run { config, out, .. } = run;
    let source = open_source(config)?;
    let steps_per_epoch = source.image_count().unwrap_or(config.data.images_per_epoch) / config.optimizer.batch as u64;
    ensure!(steps_per_epoch > 0, "the data hold fewer images than a batch of {}", config.optimizer.batch);
    let total_steps = config.schedule.epochs * steps_per_epoch;

    let mut trainer = Trainer::new(config, run.device, steps_per_epoch, total_steps)?;
    let first = prepare(run, &mut trainer)?;
    if first >= total_steps {
        return checkpoint::save(out, config, first, &trainer.model, &trainer.sgd);
    }
    let mut loader = Loader::start(source, loader_options(config, steps_per_epoch), first)?;
    let mut report = Report::open(out, first)?;
    tracing::info!(first, total_steps, steps_per_epoch, device = ?run.device, "training");
    for step in first..total_steps {
        let batch = loader.next_batch()?;
        let output = trainer.step(step, &batch)?;
        let done = step + 1;
        if done.is_multiple_of(config.schedule.report_steps) || done == total_steps {
            report.write(done, &trainer, &output, &mut loader)?;
        }
        if done.is_multiple_of(config.schedule.checkpoint_steps) || done == total_steps {
            let folder = checkpoint::save(out, config, done, &trainer.model, &trainer.sgd)?;
            tracing::info!(step = done, folder = %folder.display(), "checkpoint");
        }
    }
    checkpoint::locate(out)
}

fn open_source(config: &Config) -> Result<Arc<dyn ImageSource>> {
    Ok(match config.data_folder() {
        Some(folder) => Arc::new(ImageFolder::open(&folder)?),
        None => Arc::new(ProceduralImages::new(config.seed, config.data.canvas_px)),
    })
}

fn loader_options(config: &Config, steps_per_epoch: u64) -> LoaderOptions {
    LoaderOptions {
        seed: config.seed,
        batch: config.optimizer.batch,
        canvas_px: config.data.canvas_px,
        steps_per_epoch,
        workers: config.data.workers,
        prefetch: config.data.prefetch,
    }
}

/// Makes the run's folder, or reads where it stopped; returns the first step to take.
fn prepare(run: &Run, trainer: &mut Trainer<'_>) -> Result<u64> {
    let existing = checkpoint::list(&run.out)?;
    if run.resume {
        let Some(newest) = existing.last() else {
            bail!("nothing to resume: {} holds no checkpoint", run.out.display())
        };
        let checkpoint = Checkpoint::read(newest)?;
        checkpoint.restore(&mut trainer.model, &mut trainer.sgd)?;
        return Ok(checkpoint.record.step);
    }
    ensure!(
        existing.is_empty(),
        "{} already holds a run: go on with --resume, or choose another --out",
        run.out.display()
    );
    fs::create_dir_all(&run.out).with_context(|| format!("cannot make {}", run.out.display()))?;
    let path = run.out.join("config.toml");
    fs::write(&path, toml::to_string(&run.config)?).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(0)
}

/// Lines of progress: to the log and to a file of JSON lines.
struct Report {
    file: fs::File,
    since: Instant,
    from_step: u64,
}

impl Report {
    fn open(out: &Path, from_step: u64) -> Result<Self> {
        let path = out.join("metrics.jsonl");
        let file = fs::OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { file, since: Instant::now(), from_step })
    }

    fn write(&mut self, done: u64, trainer: &Trainer<'_>, output: &StepOutput, loader: &mut Loader) -> Result<()> {
        let elapsed = self.since.elapsed();
        let steps_per_second = (done - self.from_step) as f64 / elapsed.as_secs_f64();
        let number = |tensor: &Tensor| tensor.double_value(&[]);
        let metrics = Metrics {
            step: done,
            epoch: done as f64 / trainer.steps_per_epoch as f64,
            loss: number(&output.loss),
            loss_global: number(&output.loss_global),
            loss_dense: output.loss_dense.as_ref().map(number),
            global_top1: number(&output.global_top1),
            dense_top1: output.dense_top1.as_ref().map(number),
            embedding_std: number(&output.embedding_std),
            learning_rate: trainer.learning_rate(done - 1),
            pairs_per_second: steps_per_second * trainer.config.optimizer.batch as f64,
            data_wait: 100.0 * loader.take_waited().as_secs_f64() / elapsed.as_secs_f64(),
            skipped_images: loader.skipped(),
        };
        let remaining = Duration::from_secs_f64((trainer.total_steps - done) as f64 / steps_per_second);
        tracing::info!(
            step = done,
            of = trainer.total_steps,
            loss = format_args!("{:.4}", metrics.loss),
            global = format_args!("{:.4}", metrics.loss_global),
            dense = format_args!("{:.4}", metrics.loss_dense.unwrap_or_default()),
            global_top1 = format_args!("{:.1}%", metrics.global_top1),
            dense_top1 = format_args!("{:.1}%", metrics.dense_top1.unwrap_or_default()),
            std = format_args!("{:.4}", metrics.embedding_std),
            pairs_per_s = format_args!("{:.1}", metrics.pairs_per_second),
            data_wait = format_args!("{:.0}%", metrics.data_wait),
            remaining = format_args!("{}m{:02}s", remaining.as_secs() / 60, remaining.as_secs() % 60),
            "progress"
        );
        writeln!(self.file, "{}", serde_json::to_string(&metrics)?).context("cannot write metrics.jsonl")?;
        self.since = Instant::now();
        self.from_step = done;
        Ok(())
    }
}
