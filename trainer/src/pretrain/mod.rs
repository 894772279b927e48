//! The training loop.
//!
//! Everything random about step i is drawn from a generator seeded by the run's seed and i, so a
//! run that goes on from a checkpoint takes the steps that an undisturbed one would have taken, by
//! however many processes.

mod agreement;
mod fault;
mod reports;
mod resume;
mod stop;
mod trainer;

use std::path::PathBuf;

use anyhow::{Error, Result, bail};
use tch::Device;

pub use stop::Stop;
pub use trainer::{Steps, Trainer, Views};

use crate::checkpoint;
use crate::config::Config;
use crate::data::{DataSource, Loader, LoaderOptions, PassedOverReason, SkipCounts, Tally};
use crate::distributed::{ProcessRank, World, WorldError};
use crate::monitor::ProgressStyle;
use reports::{Reported, Reports};

/// A run to start or to go on with.
#[derive(Debug)]
pub struct Run {
    /// Its configuration.
    pub config: Config,
    /// Its folder.
    pub out: PathBuf,
    /// `true` to resume from the newest checkpoint in the folder.
    pub resume: bool,
    /// Training device.
    pub device: Device,
    /// The processes that train together.
    pub world: World,
    /// Request for a checkpoint and an early return.
    pub stop: Stop,
    /// Display of the progress.
    pub progress: ProgressStyle,
}

impl Run {
    /// A new run of this process alone that nothing stops, with progress as lines in the log.
    pub fn new(config: Config, out: PathBuf, device: Device) -> Self {
        let (world, stop) = (World::alone(), Stop::default());
        Self { config, out, resume: false, device, world, stop, progress: ProgressStyle::Lines }
    }
}

/// End of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Folder of the last checkpoint.
    pub checkpoint: PathBuf,
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole schedule; more than `step` if the run was stopped.
    pub total_steps: u64,
    /// Files in the data that are not used as images.
    pub passed_over: Tally<PassedOverReason>,
    /// Images that could not be read.
    pub skipped: SkipCounts,
}

/// Trains to the end of the schedule, or until one of the processes gets a request to stop.
///
/// # Errors
/// If the data cannot be read, the loss is not finite, a file cannot be written, or another process is
/// lost. If the data failed, a checkpoint of the last step is written.
pub fn pretrain(run: &Run) -> Result<Outcome> {
    run.world.conclude(train(run))
}

fn train(run: &Run) -> Result<Outcome> {
    let config = &run.config;
    config.check_world(run.world.size())?;
    let (source, steps_per_epoch) = open_data(config)?;
    let total_steps = config.schedule.epochs * steps_per_epoch;
    let steps = Steps { per_epoch: steps_per_epoch, total: total_steps };
    let mut trainer = Trainer::new(config, &run.world, run.device, steps)?;
    let first = resume::prepare(run, &mut trainer)?;
    agreement::same_start(run, &trainer, first)?;
    if first >= total_steps {
        let checkpoint = save(run, &trainer, first)?;
        let (passed_over, skipped) = (source.passed_over(), SkipCounts::default());
        return Ok(Outcome { checkpoint, step: first, total_steps, passed_over, skipped });
    }
    let samples = source.samples(reports::FIXED_IMAGES, config.data.canvas_px)?;
    let reports = run.world.is_first().then(|| Reports::open(run, &trainer, &samples, first));
    let mut reports = reports.transpose()?;
    let options = loader_options(config, run.world.process(), run.device, steps_per_epoch);
    let mut loader = Loader::start(source.clone(), options, first)?;
    tracing::info!(first, total_steps, steps_per_epoch, ranks = run.world.size(), device = ?run.device, "training");
    let mut step = first;
    loop {
        let batch = agreement::whole_batch(&run.world, loader.next_batch())
            .or_else(|error| Err(save_after_data_error(run, &trainer, step, error)?))?;
        let measures = trainer.step(step, &batch)?;
        step += 1;
        let after = agreement::after_step(run, &loader)?;
        let last = after.stop || step == total_steps;
        if last || step.is_multiple_of(config.schedule.report_steps) {
            trainer.check_losses()?;
        }
        if let Some(reports) = &mut reports {
            reports.after_step(&Reported { step, last, skipped: after.skipped }, &trainer, &measures, &mut loader)?;
        }
        if last || step.is_multiple_of(config.schedule.checkpoint_steps) {
            trainer.check_losses()?;
            let checkpoint = save(run, &trainer, step)?;
            if last {
                let (passed_over, skipped) = (source.passed_over(), after.skipped);
                tracing::info!(skipped = %skipped, passed_over = %passed_over, "images that were not used");
                return Ok(Outcome { checkpoint, step, total_steps, passed_over, skipped });
            }
        }
    }
}

/// Writes a checkpoint after the data have failed, and adds its path to the error.
fn save_after_data_error(run: &Run, trainer: &Trainer<'_>, step: u64, error: Error) -> Result<Error> {
    if error.is::<WorldError>() {
        return Ok(error);
    }
    let checkpoint = save(run, trainer, step)?;
    let kept = format!("stopped after step {step}, which is kept in {}; go on with --resume", checkpoint.display());
    Ok(error.context(kept))
}

/// Writes a checkpoint if the model is finite. The first process writes it, the others only return its
/// path.
fn save(run: &Run, trainer: &Trainer<'_>, step: u64) -> Result<PathBuf> {
    if let Some(name) = fault::first_bad(&trainer.model) {
        bail!("after step {step}, {name} is not finite; no checkpoint was written, the one before is kept");
    }
    if !run.world.is_first() {
        return Ok(checkpoint::folder(&run.out, step));
    }
    let folder = checkpoint::save(&run.out, &run.config, step, &trainer.model, &trainer.optimizer)?;
    tracing::info!(step, folder = %folder.display(), "checkpoint");
    Ok(folder)
}

/// The images of a run, and how many batches make up an epoch.
///
/// # Errors
/// If there is no image, or there are too few for the batch or the queue.
pub fn open_data(config: &Config) -> Result<(DataSource, u64)> {
    let source = DataSource::open(&config.data.source, config.seed, config.data.canvas_px)?;
    let images = source.image_count();
    if let Some(images) = images {
        config.check_images(images)?;
    }
    Ok((source, images.unwrap_or(config.data.images_per_epoch) / config.optimizer.batch as u64))
}

/// Options of the loader of a process's share of a run's batches.
pub fn loader_options(config: &Config, process: ProcessRank, device: Device, steps_per_epoch: u64) -> LoaderOptions {
    LoaderOptions {
        seed: config.seed,
        batch: config.optimizer.batch,
        process,
        canvas_px: config.data.canvas_px,
        steps_per_epoch,
        workers: config.data.workers,
        prefetch: config.data.prefetch,
        shard_readers: config.data.shard_readers,
        shuffle_buffer: config.data.shuffle_buffer,
        device,
    }
}
