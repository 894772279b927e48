//! A backbone with a head: trained on crops, tested on whole images.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use densecl_models::geometry::CELL_MULTIPLE_PX;
use rayon::prelude::*;
use tch::{Device, Kind, Reduction, Tensor};

use super::crops::{CropBatch, CropOptions, MEAN_COLOUR, batches};
use super::head::{Head, Mode};
use super::{Protocol, TrainingOptions};
use crate::evaluate::data::{DataError, DataSplit, Picture, SegmentationSet};
use crate::evaluate::metrics::{ConfusionMatrix, VOID};
use crate::evaluate::model::{FrozenNetwork, Model, Setup, TorchNetwork};
use crate::network::Statistics;
use crate::optimizer::{Algorithm, Optimizer, OptimizerOptions};
use densecl_vision::image::{LabelStyle, encode_labels};

/// Test images that are decoded at a time.
const DECODED: usize = 8;

/// Lines about a training, at most.
const LINES: u64 = 20;

enum Backbone {
    Frozen(FrozenNetwork),
    Trained(TorchNetwork),
}

impl Backbone {
    /// uint8 `[N, H, W, 3]` → `[N, C, h, w]`.
    fn forward(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let map = match self {
            Self::Frozen(network) => network.features(images)?,
            Self::Trained(network) => network.forward(
                images,
                match mode {
                    Mode::Training => TorchNetwork::OF_BATCH,
                    Mode::Prediction => Statistics::Running,
                },
            ),
        };
        match map.dim() {
            4 => Ok(map),
            _ => bail!("the layer is one vector an image; segmentation needs a map"),
        }
    }

    /// The parameters that are trained.
    fn parameters(&self) -> Vec<&Tensor> {
        match self {
            Self::Frozen(_) => Vec::new(),
            Self::Trained(network) => network.parameters().collect(),
        }
    }
}

/// The network that is trained and tested.
pub(super) struct SegmentationNetwork {
    backbone: Backbone,
    head: Head,
    classes: usize,
    device: Device,
}

impl SegmentationNetwork {
    /// An untrained head for `classes` on the model's layer; `seed` draws it.
    ///
    /// # Errors
    /// If the model cannot be used, or its layer has no cells.
    pub(super) fn new(
        model: &Model,
        classes: usize,
        options: &TrainingOptions,
        seed: u64,
        setup: Setup,
    ) -> Result<Self> {
        let mut backbone = match options.protocol {
            Protocol::Linear => Backbone::Frozen(model.frozen(&options.layer, seed, setup)?),
            Protocol::Fcn => Backbone::Trained(model.trainable(&options.layer, seed, setup)?),
        };
        // An ONNX model has to be run to find the number of its channels.
        let side = i64::from(CELL_MULTIPLE_PX);
        let probe = Tensor::zeros([1, side, side, 3], (Kind::Uint8, Device::Cpu));
        let channels = tch::no_grad(|| backbone.forward(&probe, Mode::Prediction))?.size()[1];
        tch::manual_seed(seed as i64);
        let head = match options.protocol {
            Protocol::Linear => Head::linear(channels, classes as i64, setup.device),
            Protocol::Fcn => Head::fcn(channels, classes as i64, setup.device),
        };
        Ok(Self { backbone, head, classes, device: setup.device })
    }

    /// uint8 `[N, H, W, 3]` → scores `[N, K, H, W]`.
    fn forward(&mut self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let features = self.backbone.forward(images, mode)?; // [N, C, h, w]
        let scores = self.head.forward(&features, mode); // [N, K, h, w]
        let size = [images.size()[1], images.size()[2]];
        Ok(scores.upsample_bilinear2d(size, false, None, None)) // [N, K, H, W]
    }

    /// Trains on random crops.
    ///
    /// # Errors
    /// If an image cannot be read, or the training diverges.
    pub(super) fn train(&mut self, set: &Arc<SegmentationSet>, options: &TrainingOptions, seed: u64) -> Result<()> {
        let TrainingOptions { steps, batch, crop_px, learning_rate, schedule, weight_decay, .. } = *options;
        let (backbone, head) = (self.backbone.parameters(), self.head.parameters());
        let sgd = OptimizerOptions { algorithm: Algorithm::Sgd, momentum: 0.9, weight_decay, trust_coefficient: 0.0 };
        let mut sgd = Optimizer::new(backbone.into_iter().chain(&head), sgd);
        let batches = batches(Arc::clone(set), CropOptions { side_px: crop_px, batch, steps, seed });
        for step in 0..steps {
            let CropBatch { images, labels } = batches.recv().context("the thread that reads images has ended")??;
            let scores = self.forward(&images, Mode::Training)?; // [N, K, S, S]
            let loss = cross_entropy(&scores, &labels.to_device(self.device)); // []
            loss.backward();
            let rate = schedule.rate(learning_rate, step, steps);
            sgd.step(rate)?;
            if (step + 1) % (steps / LINES).max(1) == 0 || step + 1 == steps {
                let loss = loss.double_value(&[]);
                ensure!(loss.is_finite(), "the loss of step {} is {loss}; try a lower --learning-rate", step + 1);
                tracing::info!(step = step + 1, of = steps, loss, learning_rate = rate, "segmentation");
            }
        }
        Ok(())
    }

    /// Tests on whole images; writes the predicted label maps into the folder `predictions`.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub(super) fn test(&mut self, set: &SegmentationSet, predictions: Option<&Path>) -> Result<ConfusionMatrix> {
        let mut matrix = ConfusionMatrix::new(self.classes);
        let numbers: Vec<usize> = (0..set.len(DataSplit::Val)).collect();
        for numbers in numbers.chunks(DECODED) {
            let read = numbers.par_iter().map(|&number| set.read(DataSplit::Val, number));
            let labelled: Vec<_> = read.collect::<Result<_, DataError>>()?;
            for (number, labelled) in numbers.iter().zip(labelled) {
                let predicted = tch::no_grad(|| self.predict(&labelled.picture))?; // [H, W]
                let truth: Vec<i64> = labelled.labels.iter().map(|&label| i64::from(label)).collect();
                let truth = Tensor::from_slice(&truth).view_as(&predicted).to_device(self.device); // [H, W]
                matrix.add(&truth, &predicted);
                if let Some(folder) = predictions {
                    write_prediction(folder, &set.name(DataSplit::Val, *number), &labelled.picture, &predicted)?;
                }
            }
        }
        Ok(matrix)
    }

    /// The class of each pixel, int64 `[H, W]`. The network sees the image at its own size, padded
    /// with the mean colour on the right and below to multiples of the largest stride.
    fn predict(&mut self, picture: &Picture) -> Result<Tensor> {
        let size = picture.size();
        let (height, width) = (i64::from(size.height), i64::from(size.width));
        let padded = [height, width].map(|side| (side as u64).next_multiple_of(u64::from(CELL_MULTIPLE_PX)) as i64);
        let mean = Tensor::from_slice(&MEAN_COLOUR).view([1, 1, 1, 3]); // [1, 1, 1, 3]
        let canvas = mean.expand([1, padded[0], padded[1], 3], false).contiguous(); // [1, H', W', 3]
        canvas.narrow(1, 0, height).narrow(2, 0, width).copy_(&picture.tensor());
        let scores = self.forward(&canvas, Mode::Prediction)?; // [1, K, H', W']
        Ok(scores.narrow(2, 0, height).narrow(3, 0, width).argmax(1, false).squeeze_dim(0)) // [H, W]
    }
}

/// Mean cross entropy of scores `[N, K, H, W]` and labels `[N, H, W]` over the pixels that are not
/// [`VOID`]; 0 without such pixels.
fn cross_entropy(scores: &Tensor, labels: &Tensor) -> Tensor {
    let counted = labels.not_equal(i64::from(VOID)).sum(Kind::Int64).clamp_min(1);
    let log_probabilities = scores.log_softmax(1, Kind::Float); // [N, K, H, W]
    let sum = log_probabilities.nll_loss_nd(labels, None::<Tensor>, Reduction::Sum, i64::from(VOID)); // []
    sum / counted
}

fn write_prediction(folder: &Path, name: &str, picture: &Picture, predicted: &Tensor) -> Result<()> {
    let labels = predicted.to_kind(Kind::Uint8).to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0_u8; labels.numel()];
    labels.copy_data(&mut bytes, labels.numel());
    let path = folder.join(format!("{name}.png"));
    let file = encode_labels(&bytes, picture.size(), &LabelStyle::voc())?;
    fs::write(&path, file).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn void_pixels_have_no_part_in_the_loss() {
        let scores = Tensor::from_slice(&[2.0_f32, 0.0, 1.0, 0.0, 0.0, 5.0]).view([1, 2, 1, 3]);
        let loss =
            |labels: [i64; 3]| cross_entropy(&scores, &Tensor::from_slice(&labels).view([1, 1, 3])).double_value(&[]);
        // Scores (2, 0), (0, 0) and (1, 5): the first two count.
        let expected = f64::midpoint((-2.0_f64).exp().ln_1p(), 2.0_f64.ln());
        assert!((loss([0, 1, 255]) - expected).abs() < 1e-6);
        assert!(loss([255; 3]).abs() < 1e-12);
    }
}
