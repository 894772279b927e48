//! Flags of API keys.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::api_keys::Day;
use crate::rate::Rate;

/// Flag of the file of keys.
#[derive(Clone, Debug, Args)]
pub(super) struct ApiKeyArgs {
    /// File of the API keys that clients must send, see `densecl-server keys new`; read again on
    /// SIGHUP. Without it no key is needed
    #[arg(long = "api-keys", env = "DENSECL_API_KEYS", value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
}

/// A subcommand of `keys`.
#[derive(Clone, Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key: it is shown once, on standard error; its entry for the file of keys goes to
    /// standard output
    New(NewKeyArgs),
}

/// Arguments of `keys new`.
#[derive(Clone, Debug, Args)]
pub struct NewKeyArgs {
    /// Name of the key, for the log and the metrics
    #[arg(long)]
    pub name: String,
    /// Allow the key to load and unload models
    #[arg(long)]
    pub admin: bool,
    /// Most requests for work with the key, such as 20/s, 600/m or 5000/h
    #[arg(long)]
    pub rate: Option<Rate>,
    /// Requests that may be sent at once; as many as the rate allows in a second by default
    #[arg(long, value_name = "N", requires = "rate")]
    pub burst: Option<NonZeroU32>,
    /// Last day on which the key is valid, in UTC
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub expires: Option<Day>,
}
