//! One step of a run: from images in host memory to updated weights and queues.

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::fault;
use crate::augment::{Normalization, StepRandom, ViewParameters, view};
use crate::config::{Config, MemoryFormat, Stepping};
use crate::data::Batch;
use crate::densecl::{DenseCl, Step};
use crate::distributed::{ProcessRank, World};
use crate::measures::Measures;
use crate::network::channels_last;
use crate::optimizer::{Optimizer, learning_rate};

/// Model, optimiser and schedule of a run.
#[derive(Debug)]
pub struct Trainer<'a> {
    pub(super) config: &'a Config,
    world: &'a World,
    device: Device,
    pub(super) model: DenseCl,
    pub(super) optimizer: Optimizer,
    pub(super) steps_per_epoch: u64,
    pub(super) total_steps: u64,
    /// Losses that have not been looked at, with the steps they are of: looking at one waits for
    /// the device.
    unchecked: Vec<(u64, Tensor)>,
}

/// Length of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Steps in an epoch.
    pub per_epoch: u64,
    /// Steps of the whole schedule.
    pub total: u64,
}

/// The two views of this process's share of a batch, as the encoders take them.
#[derive(Debug)]
pub struct Views {
    /// `[N, 3, s, s]`, normalised.
    pub query: Tensor,
    /// `[N, 3, s, s]`, normalised.
    pub key: Tensor,
    /// A permutation of the whole batch, needed only where BatchNorm has several groups.
    pub shuffle: Option<Vec<i64>>,
}

impl<'a> Trainer<'a> {
    /// A fresh model of the configuration, drawn from its seed and so the same at every process,
    /// that trains for `steps` of which so many are an epoch.
    ///
    /// # Errors
    /// If the architecture is unknown.
    pub fn new(config: &'a Config, world: &'a World, device: Device, steps: Steps) -> Result<Self> {
        let Steps { per_epoch: steps_per_epoch, total: total_steps } = steps;
        tch::manual_seed(config.seed as i64);
        let model = DenseCl::new(config.encoder_spec()?, config.contrast_options(), config.weight_kind(), device);
        if config.network.memory_format == MemoryFormat::ChannelsLast {
            model.query.channels_last();
            model.key.channels_last();
        }
        let optimizer = Optimizer::new(model.query.tensors().parameters(), config.optimizer_options());
        Ok(Self { config, world, device, model, optimizer, steps_per_epoch, total_steps, unchecked: Vec::new() })
    }

    /// Takes step number `step`, counted from 0, with this process's share of its batch: augment,
    /// forward, backward, update, enqueue.
    ///
    /// # Errors
    /// If the loss is not a number, another process is lost, or libtorch refuses.
    pub fn step(&mut self, step: u64, batch: &Batch) -> Result<Measures> {
        let views = self.views(step, batch);
        let (measures, keys) = self.model.forward_backward(&Step {
            world: self.world,
            view_q: &views.query,
            view_k: &views.key,
            shuffle: views.shuffle.as_deref(),
            loss_lambda: self.config.loss_lambda(step),
            parts: self.config.optimizer.accumulation as i64,
        })?;
        self.unchecked.push((step, measures.loss.shallow_clone()));
        if !self.device.is_cuda() {
            self.check_losses()?;
        }
        self.optimizer.step(self.learning_rate(step))?;
        self.model.enqueue(&keys)?;
        Ok(measures)
    }

    /// Two views of every image of a share of a batch; a function of the run's seed, the step, the
    /// images and their places in the batch.
    pub fn views(&self, step: u64, batch: &Batch) -> Views {
        let canvases = self.upload(&batch.pixels);
        let (ProcessRank { rank, size }, count) = (self.world.process(), batch.sizes.len());
        let mut random = StepRandom::new(self.config.seed, step, rank * count..(rank + 1) * count);
        let [query, key] = [(); 2].map(|()| {
            let parameters =
                ViewParameters::draw(&self.config.augment, &batch.sizes, self.config.data.canvas_px, &mut random);
            let size_px = i64::from(self.config.data.view_px);
            let view = view(&canvases, &parameters, size_px, &Normalization::IMAGENET); // [N, 3, s, s]
            let view = view.to_kind(self.config.weight_kind());
            match self.config.network.memory_format {
                MemoryFormat::Contiguous => view,
                MemoryFormat::ChannelsLast => channels_last(&view),
            }
        });
        let shuffle = (self.config.contrast.bn_splits > 1).then(|| random.permutation(size * count));
        Views { query, key, shuffle }
    }

    /// The images of a batch whole, as the encoders take them, `[N, 3, s, s]`.
    pub(super) fn whole(&self, batch: &Batch) -> Tensor {
        let Config { data, .. } = self.config;
        let parameters = ViewParameters::identity(&batch.sizes, data.canvas_px);
        let whole = view(&self.upload(&batch.pixels), &parameters, i64::from(data.view_px), &Normalization::IMAGENET);
        whole.to_kind(self.config.weight_kind())
    }

    /// Looks at the losses of the steps since it last did.
    ///
    /// # Errors
    /// If one is not a number: names its step, and the first tensor of the model that is not
    /// finite.
    pub fn check_losses(&mut self) -> Result<()> {
        if self.unchecked.is_empty() {
            return Ok(());
        }
        let losses: Vec<_> = self.unchecked.iter().map(|(_, loss)| loss).collect();
        let losses = Tensor::stack(&losses, 0).to_kind(Kind::Double).to_device(Device::Cpu);
        let losses = Vec::<f64>::try_from(losses).context("losses are numbers")?;
        for ((step, _), loss) in self.unchecked.drain(..).zip(losses) {
            ensure!(loss.is_finite(), fault::not_a_number(step + 1, loss, &self.model));
        }
        Ok(())
    }

    /// Learning rate of step `step`.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let warmup = self.config.schedule.warmup_steps.min(self.total_steps);
        let step = match self.config.schedule.cosine {
            Stepping::Epoch if step >= warmup => (step / self.steps_per_epoch * self.steps_per_epoch).max(warmup),
            _ => step,
        };
        learning_rate(self.config.optimizer.learning_rate, step, warmup, self.total_steps)
    }

    /// Pixels on the training device; from page-locked memory without waiting for the copy.
    fn upload(&self, pixels: &Tensor) -> Tensor {
        pixels.to_device_(self.device, Kind::Uint8, true, false)
    }
}
