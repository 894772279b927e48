//! `convert`: a network from any checkpoint to the layout of another tool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use densecl_checkpoints::{METHOD_KEY, Target, write};

use super::checkpoint_args::CheckpointArgs;
use crate::pretrained::{Pretrained, TRAINING_KEY};

/// Arguments of `convert`.
#[derive(Debug, Args)]
pub(super) struct ConvertArgs {
    /// A checkpoint or run of this trainer, a `.pth`, a `.safetensors`, Detectron2's `.pkl`, or a folder of Hugging Face's
    /// Hub.
    input: PathBuf,
    /// The file to write.
    output: PathBuf,
    /// Layout of the output [default: by OUTPUT's ending: .safetensors densecl, .pth torchvision,
    /// .pkl detectron2].
    #[arg(long, value_enum)]
    to: Option<To>,
    #[command(flatten)]
    reading: CheckpointArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum To {
    /// safetensors with the backbone and both heads.
    Densecl,
    /// A `.pth` (or `.safetensors`) of the backbone for `load_state_dict`.
    Torchvision,
    /// A `.pkl` of the backbone for `MODEL.WEIGHTS`.
    Detectron2,
    /// A `.pth` with `backbone.*` and `neck.*`.
    Mmpretrain,
}

impl ConvertArgs {
    pub(super) fn run(self) -> Result<String> {
        let target = match self.to {
            Some(To::Densecl) => Target::Densecl,
            Some(To::Torchvision) => Target::Torchvision,
            Some(To::Detectron2) => Target::Detectron2,
            Some(To::Mmpretrain) => Target::Mmpretrain,
            None => Target::from_path(&self.output).with_context(|| {
                let output = self.output.display();
                format!("which layout {output} should have is not clear from its name: say --to densecl|torchvision|detectron2|mmpretrain")
            })?,
        };
        let pretrained = Pretrained::read_with(&self.input, &self.reading.options())?;
        let mut metadata = BTreeMap::from([(METHOD_KEY.to_owned(), pretrained.method.clone())]);
        if let Some(training) = &pretrained.training {
            metadata.insert(TRAINING_KEY.to_owned(), serde_json::to_string(training)?);
        }
        let left_aside = write(&self.output, target, &pretrained.weights, &metadata)
            .with_context(|| format!("cannot write {}", self.output.display()))?;
        let Pretrained { method, architecture, weights, .. } = pretrained;
        let mut text = format!("{}: {architecture}, method {method}, as {target}, ", self.output.display());
        let _ = write!(text, "{} tensors", weights.len() - left_aside.len());
        if !left_aside.is_empty() {
            let _ = write!(text, "; the layout has no place for {}", left_aside.join(", "));
        }
        Ok(text)
    }
}
