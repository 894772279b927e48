//! The configuration of a run: a TOML file, with `key=value` overrides.
//!
//! Every value of a run is in here, so that the file a checkpoint carries says all of how it came
//! about.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use densecl_models::resnet::Architecture;
use serde::{Deserialize, Serialize};

use crate::augment::AugmentOptions;
use crate::densecl::ContrastOptions;
use crate::network::EncoderSpec;
use crate::optimizer::SgdOptions;

/// Which method trains.
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
}

/// The images and how they come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// `synthetic`, or a folder of images.
    pub source: String,
    /// Images are squeezed onto squares of this side before they are augmented.
    pub canvas_px: u32,
    /// Side of a view.
    pub view_px: u32,
    /// Images that make up an epoch of an endless source.
    pub images_per_epoch: u64,
    /// Threads that decode or draw.
    pub workers: usize,
    /// Batches that may wait ready.
    pub prefetch: usize,
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
}

/// Gradient descent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Images in a batch.
    pub batch: usize,
    /// Learning rate at the start.
    pub learning_rate: f64,
    /// Momentum of the gradient.
    pub momentum: f64,
    /// Weight decay.
    pub weight_decay: f64,
}

/// How often the cosine schedule moves on.
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
    /// When the learning rate moves.
    pub cosine: Stepping,
    /// Steps between checkpoints.
    pub checkpoint_steps: u64,
    /// Checkpoints that are kept, newest first.
    pub keep_checkpoints: usize,
    /// Steps between lines of progress.
    pub report_steps: u64,
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
    /// As for [`Config::read`].
    pub fn parse(text: &str, overrides: &[String]) -> Result<Self> {
        let mut table: toml::Table = toml::from_str(text)?;
        for line in overrides {
            let (key, value) = line.split_once('=').with_context(|| format!("`--set {line}`: expected key=value"))?;
            set(&mut table, key.trim(), parse_value(value.trim()))?;
        }
        let config: Self = table.try_into()?;
        config.check()?;
        Ok(config)
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
        let ContrastConfig { queue_length, temperature, momentum, bn_splits, .. } = self.contrast;
        ContrastOptions { queue_length, temperature, momentum, bn_splits }
    }

    /// Weight of the dense loss in step `step`.
    pub fn loss_lambda(&self, step: u64) -> f64 {
        if step < self.contrast.lambda_warmup_steps { 0.0 } else { self.contrast.loss_lambda }
    }

    /// The optimiser's options.
    pub fn sgd_options(&self) -> SgdOptions {
        SgdOptions { momentum: self.optimizer.momentum, weight_decay: self.optimizer.weight_decay }
    }

    /// The folder of images, unless they are procedural.
    pub fn data_folder(&self) -> Option<PathBuf> {
        (self.data.source != "synthetic").then(|| PathBuf::from(&self.data.source))
    }

    fn check(&self) -> Result<()> {
        self.encoder_spec()?;
        self.augment.check().map_err(|e| anyhow!(e))?;
        let Self { network, data, contrast, optimizer, schedule, .. } = self;
        ensure!((1..=1024).contains(&network.stem_width), "network.stem_width: expected 1 to 1024");
        ensure!((1..=65_536).contains(&network.dim), "network.dim: expected 1 to 65536");
        ensure!((32..=4096).contains(&data.view_px), "data.view_px: expected 32 to 4096");
        ensure!((16..=8192).contains(&data.canvas_px), "data.canvas_px: expected 16 to 8192");
        ensure!(data.workers > 0 && data.prefetch > 0, "data.workers and data.prefetch: at least 1");
        let batch = optimizer.batch as i64;
        ensure!(batch >= 2, "optimizer.batch: at least 2");
        ensure!(
            contrast.queue_length >= batch && contrast.queue_length % batch == 0,
            "contrast.queue_length is {}, which is not a multiple of optimizer.batch = {batch}; {} would be",
            contrast.queue_length,
            (contrast.queue_length / batch).max(1) * batch,
        );
        ensure!(
            contrast.bn_splits >= 1 && batch % contrast.bn_splits == 0 && batch / contrast.bn_splits >= 2,
            "contrast.bn_splits is {}; it must divide optimizer.batch = {batch} into groups of at least 2",
            contrast.bn_splits,
        );
        ensure!(contrast.temperature > 0.0, "contrast.temperature: above 0");
        ensure!((0.0..=1.0).contains(&contrast.momentum), "contrast.momentum: within [0, 1]");
        ensure!((0.0..=1.0).contains(&contrast.loss_lambda), "contrast.loss_lambda: within [0, 1]");
        ensure!(
            optimizer.learning_rate >= 0.0 && optimizer.learning_rate.is_finite(),
            "optimizer.learning_rate: not negative"
        );
        ensure!((0.0..1.0).contains(&optimizer.momentum), "optimizer.momentum: within [0, 1)");
        ensure!(optimizer.weight_decay >= 0.0, "optimizer.weight_decay: not negative");
        ensure!(data.images_per_epoch >= optimizer.batch as u64, "data.images_per_epoch: at least a batch");
        ensure!(
            schedule.checkpoint_steps > 0 && schedule.keep_checkpoints > 0 && schedule.report_steps > 0,
            "schedule.checkpoint_steps, keep_checkpoints and report_steps: at least 1"
        );
        Ok(())
    }
}

fn parse_value(text: &str) -> toml::Value {
    let line = format!("value = {text}");
    let parsed = toml::from_str::<toml::Table>(&line).ok().and_then(|mut table| table.remove("value"));
    parsed.unwrap_or_else(|| toml::Value::String(text.to_owned()))
}

fn set(table: &mut toml::Table, key: &str, value: toml::Value) -> Result<()> {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
            Ok(())
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            match inner.as_table_mut() {
                Some(inner) => set(inner, rest, value),
                None => bail!("`--set`: `{first}` is a value, not a table"),
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const TINY: &str = include_str!("../configs/tiny.toml");

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
    fn what_is_wrong_is_named() {
        let message = |line: &str| format!("{:#}", Config::parse(TINY, &[line.to_owned()]).unwrap_err());
        assert!(message("optimizer.bach=16").contains("bach"));
        assert!(message("contrast.queue_length=100").contains("multiple of optimizer.batch"));
        assert!(message("contrast.bn_splits=3").contains("bn_splits"));
        assert!(message("network.architecture=vgg").contains("resnet18"));
        assert!(message("nonsense").contains("key=value"));
    }
}
