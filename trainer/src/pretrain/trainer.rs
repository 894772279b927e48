//! One step of a run: from images in host memory to updated weights and queues.

use anyhow::{Result, anyhow, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

use crate::augment::{Normalization, ViewParameters, view};
use crate::config::{Config, Stepping};
use crate::data::Batch;
use crate::densecl::{DenseCl, StepOutput};
use crate::optimizer::{Sgd, cosine};

/// Model, optimiser and schedule of a run.
#[derive(Debug)]
pub struct Trainer<'a> {
    pub(super) config: &'a Config,
    device: Device,
    pub(super) model: DenseCl,
    pub(super) sgd: Sgd,
    pub(super) steps_per_epoch: u64,
    pub(super) total_steps: u64,
}

impl<'a> Trainer<'a> {
    /// A fresh model of the configuration, drawn from its seed.
    ///
    /// # Errors
    /// If the architecture is unknown.
    pub fn new(config: &'a Config, device: Device, steps_per_epoch: u64, total_steps: u64) -> Result<Self> {
        tch::manual_seed(config.seed as i64);
        let model = DenseCl::new(config.encoder_spec()?, config.contrast_options(), Kind::Float, device);
        let sgd = Sgd::new(model.query.tensors().parameters(), config.sgd_options());
        Ok(Self { config, device, model, sgd, steps_per_epoch, total_steps })
    }

    /// Takes step number `step`, counted from 0: augment, forward, backward, update, enqueue.
    ///
    /// # Errors
    /// If the loss is not a number, or the batch does not divide the queues.
    pub fn step(&mut self, step: u64, batch: &Batch) -> Result<StepOutput> {
        let (n, side) = (batch.sizes.len() as i64, i64::from(self.config.data.canvas_px));
        let canvases = Tensor::from_slice(&batch.pixels).view([n, side, side, 3]).to_device(self.device);
        let mut rng = ChaCha8Rng::seed_from_u64(self.config.seed);
        rng.set_stream(step);
        let [view_q, view_k] = [(); 2].map(|()| {
            let parameters =
                ViewParameters::draw(&self.config.augment, &batch.sizes, self.config.data.canvas_px, &mut rng);
            view(&canvases, &parameters, i64::from(self.config.data.view_px), &Normalization::IMAGENET)
        }); // [N, 3, s, s] each
        let shuffle = self.shuffle(n, &mut rng);

        let output = self.model.forward(&view_q, &view_k, shuffle.as_ref(), self.config.loss_lambda(step));
        let loss = output.loss.double_value(&[]);
        ensure!(loss.is_finite(), "the loss of step {} is {loss}: lower optimizer.learning_rate", step + 1);
        output.loss.backward();
        self.sgd.step(self.learning_rate(step));
        self.model.enqueue(&output).map_err(|e| anyhow!(e))?;
        Ok(output)
    }

    /// A permutation of the batch, needed only where BatchNorm has several groups.
    fn shuffle(&self, n: i64, rng: &mut ChaCha8Rng) -> Option<Tensor> {
        (self.config.contrast.bn_splits > 1).then(|| {
            let mut order: Vec<i64> = (0..n).collect();
            order.shuffle(rng);
            Tensor::from_slice(&order).to_device(self.device)
        })
    }

    /// Learning rate of step `step`.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let done = match self.config.schedule.cosine {
            Stepping::Step => step,
            Stepping::Epoch => step / self.steps_per_epoch * self.steps_per_epoch,
        };
        cosine(self.config.optimizer.learning_rate, done as f64 / self.total_steps as f64)
    }
}
