//! One feature vector for each image of a labelled folder.

use std::path::Path;

use anyhow::Result;
use rayon::prelude::*;
use tch::{Kind, Tensor};

use super::data::{DataError, LabelledFiles, Picture};
use super::model::FrozenNetwork;
use crate::tensor_file::{TensorFile, TensorFileError};

/// Seconds between two lines about how far it has come.
const REPORT_EVERY_S: u64 = 20;

/// Features of images, and their classes.
#[derive(Debug)]
pub struct LabelledFeatures {
    /// float32 `[N, C]`.
    pub features: Tensor,
    /// int64 `[N]`.
    pub labels: Tensor,
    /// Number of classes.
    pub classes: usize,
}

impl LabelledFeatures {
    /// The mean over the cells of each image's central square, squeezed to `side_px`.
    ///
    /// # Errors
    /// If an image cannot be read, or the network refuses.
    pub fn extract(
        network: &mut FrozenNetwork,
        files: &LabelledFiles,
        classes: usize,
        batches: ImageBatches,
    ) -> Result<Self> {
        let ImageBatches { side_px, batch } = batches;
        let side = i64::from(side_px);
        let mut pooled = Vec::new();
        let mut reported = std::time::Instant::now();
        for paths in files.paths.chunks(batch) {
            let pixels: Vec<Vec<u8>> = paths
                .par_iter()
                .map(|path| Picture::read(path).map(|picture| picture.centre_square(side_px)))
                .collect::<Result<_, DataError>>()?;
            let images = Tensor::from_slice(&pixels.concat()).view([-1, side, side, 3]); // [N, S, S, 3]
            let map = network.features(&images)?; // [N, C, h, w], or [N, C] of `global`
            pooled.push(if map.dim() == 4 { map.mean_dim([2, 3].as_slice(), false, Kind::Float) } else { map }); // [N, C]
            if reported.elapsed().as_secs() >= REPORT_EVERY_S {
                reported = std::time::Instant::now();
                tracing::info!(images = pooled.len() * batch, of = files.paths.len(), "features");
            }
        }
        let features = Tensor::cat(&pooled, 0); // [N, C]
        let labels: Vec<i64> = files.labels.iter().map(|&label| label as i64).collect();
        let labels = Tensor::from_slice(&labels).to_device(features.device());
        Ok(Self { features, labels, classes })
    }

    /// The images with these numbers, in this order.
    #[must_use]
    pub fn select(&self, numbers: &[i64]) -> Self {
        let numbers = Tensor::from_slice(numbers).to_device(self.features.device());
        Self {
            features: self.features.index_select(0, &numbers),
            labels: self.labels.index_select(0, &numbers),
            classes: self.classes,
        }
    }
}

/// Size of the images and of the batches.
#[derive(Clone, Copy, Debug)]
pub struct ImageBatches {
    /// Side of the square that the network sees.
    pub side_px: u32,
    /// Images at a time.
    pub batch: usize,
}

/// Writes `{train,test}/{features,labels}` as safetensors.
///
/// # Errors
/// If the file cannot be written.
pub(super) fn write(path: &Path, train: &LabelledFeatures, test: &LabelledFeatures) -> Result<(), TensorFileError> {
    let mut file = TensorFile::default();
    for (part, of) in [("train", train), ("test", test)] {
        file.tensors.insert(format!("{part}/features"), of.features.shallow_clone());
        file.tensors.insert(format!("{part}/labels"), of.labels.shallow_clone());
    }
    file.write(path)
}
