//! The training loop.
//!
//! Everything random about step i is drawn from a generator seeded by the run's seed and i, so a
//! run that goes on from a checkpoint takes the steps that an undisturbed one would have taken.

mod fault;
mod reports;
mod resume;
mod stop;
mod trainer;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use tch::Device;

pub use stop::Stop;
pub use trainer::{Trainer, Views};

use crate::checkpoint;
use crate::config::Config;
use crate::data::{DataSource, Loader, LoaderOptions};
use crate::monitor::ProgressStyle;
use reports::Reports;

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
    /// Asks for a checkpoint and an early return.
    pub stop: Stop,
    /// How progress is shown.
    pub progress: ProgressStyle,
}

/// How a run came to its end.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Folder of the last checkpoint.
    pub checkpoint: PathBuf,
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole schedule; more than `step` if the run was stopped.
    pub total_steps: u64,
}

/// Trains to the end of the schedule, or until it is told to stop.
///
/// # Errors
/// If the data cannot be read, the loss stops being a number, or a file cannot be written. What
/// had been learnt until the last step is then in a checkpoint if the data failed, and until the
/// last checkpoint otherwise.
pub fn pretrain(run: &Run) -> Result<Outcome> {
    let config = &run.config;
    let (source, steps_per_epoch) = open_data(config)?;
    let samples = source.samples(reports::FIXED_IMAGES, config.data.canvas_px)?;
    let total_steps = config.schedule.epochs * steps_per_epoch;

    let mut trainer = Trainer::new(config, run.device, steps_per_epoch, total_steps)?;
    let first = resume::prepare(run, &mut trainer)?;
    if first >= total_steps {
        let checkpoint = save(run, &trainer, first)?;
        return Ok(Outcome { checkpoint, step: first, total_steps });
    }
    let mut loader = Loader::start(source, loader_options(config, run.device, steps_per_epoch), first)?;
    let mut reports = Reports::open(run, &trainer, &samples, first)?;
    tracing::info!(first, total_steps, steps_per_epoch, device = ?run.device, "training");
    let mut saved = None;
    for step in first..total_steps {
        let batch = match loader.next_batch() {
            Ok(batch) => batch,
            Err(error) => {
                // The data have failed, not the model: what it has learnt is kept.
                let checkpoint = save(run, &trainer, step)?;
                return Err(error.context(format!(
                    "stopped after step {step}, which is kept in {}; go on with --resume",
                    checkpoint.display()
                )));
            }
        };
        let output = trainer.step(step, &batch)?;
        let done = step + 1;
        let stopping = run.stop.requested();
        reports.after_step(done, &mut trainer, &output, &mut loader, stopping)?;
        if stopping || done.is_multiple_of(config.schedule.checkpoint_steps) || done == total_steps {
            trainer.check_losses()?;
            let checkpoint = save(run, &trainer, done)?;
            saved = Some(Outcome { checkpoint, step: done, total_steps });
        }
        if stopping {
            break;
        }
    }
    Ok(saved.expect("the last step of every run writes a checkpoint"))
}

/// Writes a checkpoint, but none that a run could not go on from.
fn save(run: &Run, trainer: &Trainer<'_>, step: u64) -> Result<PathBuf> {
    if let Some(name) = fault::first_bad(&trainer.model) {
        ensure!(false, "after step {step}, {name} is not finite; no checkpoint was written, the one before is kept");
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

/// How batches of a run are drawn.
pub fn loader_options(config: &Config, device: Device, steps_per_epoch: u64) -> LoaderOptions {
    LoaderOptions {
        seed: config.seed,
        batch: config.optimizer.batch,
        canvas_px: config.data.canvas_px,
        steps_per_epoch,
        workers: config.data.workers,
        prefetch: config.data.prefetch,
        shard_readers: config.data.shard_readers,
        shuffle_buffer: config.data.shuffle_buffer,
        device,
    }
}
