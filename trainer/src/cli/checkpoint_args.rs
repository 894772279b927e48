//! Arguments of all commands that read another tool's file of weights.

use clap::Args;
use densecl_checkpoints::Allow;

use crate::pretrained::ReadOptions;

/// Selection of weights from a file.
#[derive(Clone, Debug, Args)]
pub(super) struct CheckpointArgs {
    /// Of several networks in a file, the one to take: `ema` for averaged weights, or its key or prefix, such as `teacher`
    /// or `encoder_k`; `inspect` lists them [default: the trained query encoder].
    #[arg(long, value_name = "NAME")]
    weight_set: Option<String>,
    /// Names within a file's network, with `*` for any characters, that may be missing, unexpected or of another shape;
    /// they are ignored.
    #[arg(long, value_name = "PATTERN")]
    allow: Vec<String>,
}

impl CheckpointArgs {
    pub(super) fn options(self) -> ReadOptions {
        ReadOptions { weight_set: self.weight_set, allow: Allow::patterns(self.allow) }
    }
}
