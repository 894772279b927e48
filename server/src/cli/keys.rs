//! Flags about API keys.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::api_keys::Day;
use crate::config::Rate;

/// Who may ask.
#[derive(Clone, Debug, Args)]
pub(super) struct ApiKeyArgs {
    /// File of the API keys that clients must have, see `densecl-server keys new`; read again on
    /// SIGHUP. Without it everyone may ask
    #[arg(long = "api-keys", env = "DENSECL_API_KEYS", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// What to do with keys.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key: it is shown once, on standard error; its entry for the file of keys goes to
    /// standard output
    New(NewKeyArgs),
}

/// What the new key is for.
#[derive(Clone, Debug, Args)]
pub struct NewKeyArgs {
    /// Name of the key, for the log and the metrics
    #[arg(long)]
    pub name: String,
    /// Let the key load and unload models, too
    #[arg(long)]
    pub admin: bool,
    /// Requests for work that the key is good for, such as 20/s or 600/m
    #[arg(long)]
    pub rate: Option<Rate>,
    /// Requests at once above the steady rate; a second's worth by default
    #[arg(long, value_name = "N", requires = "rate")]
    pub burst: Option<NonZeroU32>,
    /// Last day that the key is good for, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub expires: Option<Day>,
}
