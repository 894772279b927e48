//! The configuration of a run: a TOML file, with `key=value` overrides.
//!
//! Every value of a run is in here, so that the file a checkpoint carries says all of how it came
//! about.

mod check;
mod keys;

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use densecl_models::resnet::Architecture;
use serde::{Deserialize, Serialize};
use tch::Kind;

use crate::augment::AugmentOptions;
use crate::densecl::ContrastOptions;
use crate::network::EncoderSpec;
use crate::optimizer::{Algorithm, OptimizerOptions};

/// Training method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// Global and dense contrast (arXiv 2011.09157).
    #[serde(rename = "densecl")]
    DenseCl,
    /// Global contrast alone (arXiv 2003.04297).
    MocoV2,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The method.
    pub method: Method,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// The encoder.
    pub network: NetworkConfig,
    /// The images.
    pub data: DataConfig,
    /// The views.
    #[serde(default)]
    pub augment: AugmentOptions,
    /// The loss.
    pub contrast: ContrastConfig,
    /// Gradient descent.
    pub optimizer: OptimizerConfig,
    /// Length and reports of the run.
    pub schedule: ScheduleConfig,
}

/// The encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// `resnet18`, `resnet34`, `resnet50` or `resnet101`.
    pub architecture: String,
    /// Channels of the stem; 64 is the standard network.
    pub stem_width: i64,
    /// Length of the projections.
    pub dim: i64,
    /// Type in which convolutions and matrix products are computed.
    #[serde(default)]
    pub precision: Precision,
    /// Memory layout of images and weights.
    #[serde(default)]
    pub memory_format: MemoryFormat,
}

/// Type in which convolutions and matrix products are computed; weights, sums and norms are
/// float32, unless everything is float64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Exact to about 7 digits.
    #[default]
    Float32,
    /// Exact to about 3 digits; half the memory traffic.
    Bf16,
    /// Everything exact to about 16 digits, weights included: for comparisons of two runs.
    Float64,
}

/// Memory layout of images and weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryFormat {
    /// N, C, H, W.
    #[default]
    Contiguous,
    /// N, H, W, C: what tensor cores and bfloat16 kernels want.
    ChannelsLast,
}

/// The images and how they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `synthetic`, a folder of images, a `.txt` list of files, or tar shards: a `.tar` file, a
    /// folder of them, or a name with a range such as `train-{0000..0146}.tar`.
    pub source: String,
    /// Images are squeezed onto squares of this side before they are augmented.
    pub canvas_px: u32,
    /// Side of a view.
    pub view_px: u32,
    /// Images that make up an epoch of an endless source: procedural images, tar shards.
    #[serde(default = "default_images_per_epoch")]
    pub images_per_epoch: u64,
    /// Threads that decode or draw.
    pub workers: usize,
    /// Batches that may wait ready.
    pub prefetch: usize,
    /// Images of tar shards that wait, in each reader, to be drawn in random order.
    #[serde(default = "default_shuffle_buffer")]
    pub shuffle_buffer: usize,
    /// Shards that are read side by side.
    #[serde(default = "default_shard_readers")]
    pub shard_readers: usize,
}

/// Number of images of ImageNet-1k.
fn default_images_per_epoch() -> u64 {
    1_281_167
}

fn default_shuffle_buffer() -> usize {
    2000
}

fn default_shard_readers() -> usize {
    4
}

/// The loss and what it remembers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContrastConfig {
    /// Vectors in each queue.
    pub queue_length: i64,
    /// τ.
    pub temperature: f64,
    /// m of the momentum encoder.
    pub momentum: f64,
    /// Weight of the dense loss; MoCo-v2 has none.
    pub loss_lambda: f64,
    /// Steps at the start for which that weight is 0, so that cells are matched by features that
    /// mean something before the matches are trained on.
    #[serde(default)]
    pub lambda_warmup_steps: u64,
    /// BatchNorm groups in a batch.
    pub bn_splits: i64,
    /// Negatives that the loss looks at together; bounds its memory, changes no result.
    #[serde(default = "default_loss_chunk")]
    pub loss_chunk: i64,
}

fn default_loss_chunk() -> i64 {
    4096
}

/// Gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// `sgd` or `lars`.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Images in a batch.
    pub batch: usize,
    /// Parts in which a batch goes through the network, where it does not fit into memory whole;
    /// the result is the whole batch's.
    #[serde(default = "default_accumulation")]
    pub accumulation: usize,
    /// Learning rate at its highest.
    pub learning_rate: f64,
    /// Momentum of the gradient.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// η of LARS; SGD has none.
    #[serde(default = "default_trust_coefficient")]
    pub trust_coefficient: f64,
}

fn default_accumulation() -> usize {
    1
}

fn default_trust_coefficient() -> f64 {
    0.001
}

/// Granularity of the cosine schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stepping {
    /// After every epoch, as the published runs.
    Epoch,
    /// After every step: better for runs of few epochs.
    Step,
}

/// Length and reports of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Passes over the data; 0 writes the random weights and stops.
    pub epochs: u64,
    /// Granularity of the learning rate.
    pub cosine: Stepping,
    /// Steps at the start over which the learning rate rises in a line.
    #[serde(default)]
    pub warmup_steps: u64,
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Checkpoints that are kept, newest first.
    pub keep_checkpoints: usize,
    /// Steps between lines of progress.
    pub report_steps: u64,
    /// Steps between pictures of what the network sees; 0 is never.
    #[serde(default = "default_picture_steps")]
    pub picture_steps: u64,
}

fn default_picture_steps() -> u64 {
    1000
}

impl Config {
    /// Reads a file and applies `key=value` overrides, where a key is a path such as
    /// `optimizer.batch` and a value is TOML (bare words are text).
    ///
    /// # Errors
    /// If the file cannot be read, a key is unknown, or a value is out of range.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the config {}", path.display()))?;
        Self::parse(&text, overrides).with_context(|| format!("the config {} is not valid", path.display()))
    }

    /// Reads TOML text and applies overrides.
    ///
    /// # Errors
    /// The errors of [`Config::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text)?;
        keys::apply(&mut table, overrides)?;
        keys::refuse_unknown(&table)?;
        let config: Self = table.try_into()?;
        config.check()?;
        Ok(config)
    }

    /// Keys whose values differ from those of `other`: key, value here, value there.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn differences(&self, other: &Self) -> Result<Vec<(String, String, String)>> {
        Ok(keys::differences(&toml::Table::try_from(self)?, &toml::Table::try_from(other)?))
    }

    /// The encoder's size and shape.
    ///
    /// # Errors
    /// If the architecture is unknown.
    pub fn encoder_spec(&self) -> Result<EncoderSpec> {
        let architecture: Architecture = self.network.architecture.parse().map_err(|e: String| anyhow!(e))?;
        let dense = self.method == Method::DenseCl;
        Ok(EncoderSpec { architecture, stem_width: self.network.stem_width, dim: self.network.dim, dense })
    }

    /// The loss's options.
    pub fn contrast_options(&self) -> ContrastOptions {
        let ContrastConfig { queue_length, temperature, momentum, bn_splits, loss_chunk, .. } = self.contrast;
        let products = match self.network.precision {
            Precision::Float32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Float64 => Kind::Double,
        };
        ContrastOptions { queue_length, temperature, momentum, bn_splits, loss_chunk, products }
    }

    /// Type of the weights.
    pub fn weight_kind(&self) -> Kind {
        match self.network.precision {
            Precision::Float32 | Precision::Bf16 => Kind::Float,
            Precision::Float64 => Kind::Double,
        }
    }

    /// Weight of the dense loss in step `step`.
    pub fn loss_lambda(&self, step: u64) -> f64 {
        if step < self.contrast.lambda_warmup_steps { 0.0 } else { self.contrast.loss_lambda }
    }

    /// The optimiser's options.
    pub fn optimizer_options(&self) -> OptimizerOptions {
        let OptimizerConfig { algorithm, momentum, weight_decay, trust_coefficient, .. } = self.optimizer;
        OptimizerOptions { algorithm, momentum, weight_decay, trust_coefficient }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TINY: &str = include_str!("../../configs/tiny.toml");

    #[test]
    fn every_shipped_config_is_valid() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            Config::read(&entry.unwrap().path(), &[]).unwrap();
            count += 1;
        }
        assert!(count >= 3);
    }

    #[test]
    fn overrides_reach_nested_keys_and_keep_their_types() {
        let overrides = ["optimizer.batch=16", "data.source=/photos/a=b", "augment.crop_area=[0.5, 0.9]"];
        let config = Config::parse(TINY, &overrides.map(str::to_owned)).unwrap();
        assert_eq!(config.optimizer.batch, 16);
        assert_eq!(config.data.source, "/photos/a=b");
        assert_eq!(format!("{:?}", config.augment.crop_area), "[0.5, 0.9]");
    }

    #[test]
    fn errors_name_the_wrong_key() {
        let message = |line: &str| format!("{:#}", Config::parse(TINY, &[line.to_owned()]).unwrap_err());
        assert!(message("optimizer.bach=16").contains("`optimizer.batch`"));
        assert!(message("contrast.queue_length=100").contains("multiple of optimizer.batch"));
        assert!(message("contrast.bn_splits=3").contains("bn_splits"));
        assert!(message("optimizer.accumulation=4").contains("must divide contrast.bn_splits = 2"));
        let images = |count| format!("{:#}", Config::parse(TINY, &[]).unwrap().check_images(count).unwrap_err());
        assert!(images(5).contains("fewer than a batch of 8"));
        assert!(images(60).contains("Set it to a quarter of the images or less, a multiple of the batch: 8"));
        let shared = |ranks| format!("{:#}", Config::parse(TINY, &[]).unwrap().check_world(ranks).unwrap_err());
        assert!(shared(4).contains("contrast.bn_splits to 4"), "{}", shared(4));
        assert!(shared(3).contains("3 ranks cannot share optimizer.batch = 8"), "{}", shared(3));
        let parts = ["contrast.bn_splits=4".to_owned(), "optimizer.accumulation=4".to_owned()];
        let parts = Config::parse(TINY, &parts).unwrap().check_world(2).unwrap_err().to_string();
        assert!(parts.contains("optimizer.accumulation"), "{parts}");
        Config::parse(TINY, &[]).unwrap().check_world(2).unwrap();
        assert!(message("network.architecture=vgg").contains("resnet18"));
        assert!(message("nonsense").contains("key=value"));
    }
}
