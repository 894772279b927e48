//! Flags of `features` and `correspondence`, which answer one request without a server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::RepositoryArgs;
use super::engine::EngineArgs;
use crate::cache::CacheSettings;
use crate::config::{ClientRates, Config, ConnectionLimits, Drain, RequestLimits};
use densecl_inference::batch::Batching;
use densecl_vision::features::Pooling;

/// Flags of the subcommands that answer one request without a server.
#[derive(Clone, Debug, Args)]
pub struct OfflineArgs {
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// A parameter of the request, such as layer=res3+res4; see the API for all of them
    #[arg(long = "set", short = 's', value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<(String, String)>,
    /// Format of the result, such as json, npy or png; json if not given, and with --mask png
    #[arg(long)]
    pub format: Option<String>,
    /// File for the result; standard output if not given
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl OfflineArgs {
    /// Settings without the limits that protect a server from its clients.
    pub fn config(&self) -> Config {
        const NO_TIMEOUT: Duration = Duration::from_hours(24);
        const LARGEST_SIDE_PX: u32 = 16_384;
        Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            admin_listen: None,
            models: self.repository.models.clone(),
            warm_up: Vec::new(),
            engine: self.engine.options(),
            batching: Batching::NONE,
            limits: RequestLimits {
                max_side_px: LARGEST_SIDE_PX,
                max_body_bytes: u64::MAX,
                max_pixels: u64::from(u32::MAX),
                max_response_bytes: u64::MAX,
                max_images: 1_000_000,
                max_points: 1_000_000,
                timeout: NO_TIMEOUT,
                max_in_flight: 64,
                memory_bytes: u64::MAX,
                body_timeout: NO_TIMEOUT,
            },
            connections: ConnectionLimits::default(),
            rates: ClientRates::default(),
            cache: CacheSettings::OFF,
            drain: Drain { delay: Duration::ZERO, timeout: NO_TIMEOUT },
            api_keys: None,
            traces: None,
            cors_origins: Vec::new(),
        }
    }
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Arguments of `features`.
#[derive(Clone, Debug, Args)]
pub struct FeaturesArgs {
    /// Image files; the result of several is json or safetensors, with --pool also npy or raw
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// One vector for each image instead of a map, of length 1 unless --set normalize=none: the mean of its cells, their
    /// largest values, or their generalised mean
    #[arg(long, value_enum)]
    pub pool: Option<PoolName>,
    /// Parameters of the request, and its result.
    #[command(flatten)]
    pub offline: OfflineArgs,
}

/// Arguments of `correspondence`.
#[derive(Clone, Debug, Args)]
pub struct CorrespondenceArgs {
    /// Image file whose points are looked for
    pub source: PathBuf,
    /// Image files in which the points are looked for
    #[arg(required = true, value_name = "TARGET")]
    pub targets: Vec<PathBuf>,
    /// PNG of labels of the source's pixels, to transfer to the target
    #[arg(long, value_name = "FILE")]
    pub mask: Option<PathBuf>,
    /// Parameters of the request, and its result.
    #[command(flatten)]
    pub offline: OfflineArgs,
}

/// How the cells of a map become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolName {
    /// The mean
    Mean,
    /// The largest value
    Max,
    /// The generalised mean (`GeM`) with exponent 3
    Gem,
}

impl From<PoolName> for Pooling {
    fn from(name: PoolName) -> Self {
        match name {
            PoolName::Mean => Self::Mean,
            PoolName::Max => Self::Max,
            PoolName::Gem => Self::Gem,
        }
    }
}
