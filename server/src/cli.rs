//! The command line. Every flag of `serve` has an environment variable, too; the flag wins, and an empty variable counts
//! as unset.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cache::CacheSettings;
use crate::config::{ClientRates, Config, ConnectionLimits, CorsOrigin, Drain, RequestLimits};
use densecl_inference::batch::Batching;
use densecl_inference::onnx_runtime::{Device, EngineOptions, Precision};
use densecl_inference::registry::WarmUpLayers;
use densecl_vision::features::Pooling;

mod administration;
mod cache;
mod connections;
mod environment;
mod evaluate;
mod keys;
mod traces;
mod values;

use self::administration::AdministrationArgs;
use self::cache::CacheArgs;
use self::connections::ConnectionArgs;
pub use self::evaluate::{Baseline, EvaluateArgs, Flip, RefineName};
use self::keys::ApiKeyArgs;
pub use self::keys::{KeysCommand, NewKeyArgs};
use self::traces::TraceArgs;
use self::values::{ByteSize, DurationValue, parse_listen_address};

/// Most points of one request.
const MAX_POINTS: usize = 10_000;

/// Serves dense features and point correspondences over HTTP.
#[derive(Debug, Parser)]
#[command(name = "densecl-server", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Subcommand; `serve` if not given.
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeArgs,
    /// Names of the environment variables that settings were taken from.
    #[arg(skip)]
    variables: Vec<String>,
}

impl Cli {
    /// Parses the arguments of this process and its environment variables. Ends the process if they are wrong, and for
    /// `--help` and `--version`.
    pub fn from_process() -> Self {
        let mut command = environment::without_empty_variables(Self::command());
        let arguments: Vec<_> = std::env::args_os().collect();
        let parsed = command.try_get_matches_from_mut(&arguments).and_then(|matches| {
            let cli = Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
            Ok(Self { variables: environment::used_variables(&command, &matches), ..cli })
        });
        parsed.unwrap_or_else(|error| environment::name_variables(error, &command, &arguments).exit())
    }

    /// A line that names the environment variables that settings were taken from, for errors about settings; `None` if
    /// there are none.
    pub fn settings_from_variables(&self) -> Option<String> {
        let names = environment::list(self.variables.iter().map(String::as_str));
        (!names.is_empty()).then(|| format!("settings from the environment: {names}"))
    }

    /// The subcommand with its arguments.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or_else(|| Command::Serve(Box::new(self.serve)))
    }
}

/// A subcommand with its arguments.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Answer requests until SIGTERM or SIGINT (the default)
    Serve(Box<ServeArgs>),
    /// Compute the features of image files, without a server
    Features(Box<FeaturesArgs>),
    /// Find points of one image file in another, without a server
    Correspondence(Box<CorrespondenceArgs>),
    /// Measure correspondences on data with exact labels: HPatches, SPair-71k, procedural pairs and scenes
    Evaluate(Box<EvaluateArgs>),
    /// Check that a running server is ready, for the health check of a container
    Healthcheck(HealthcheckArgs),
    /// Print the OpenAPI document
    Openapi,
    /// List the models of a repository
    Models(ModelsArgs),
    /// Make API keys for clients
    #[command(subcommand)]
    Keys(KeysCommand),
}

/// Flags of the model repository.
#[derive(Clone, Debug, Args)]
pub struct RepositoryArgs {
    /// Folder of models, NAME/VERSION/model.onnx
    #[arg(long, env = "DENSECL_MODELS", value_name = "DIR", default_value = "models/zoo")]
    pub models: PathBuf,
}

/// Flags of the engines.
#[derive(Clone, Debug, Args)]
pub struct EngineArgs {
    /// Where models run: auto, cpu, cuda, or cuda:N,M for several GPUs; CUDA that cannot start is an error
    #[arg(long, env = "DENSECL_DEVICE", default_value = "auto")]
    device: Device,
    /// Threads for inference, and for decoding and matching; all cores by default
    #[arg(long, env = "DENSECL_THREADS", value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Engines on the CPU, or on each GPU; by default one per thread (up to 8), or 2 per GPU
    #[arg(long, env = "DENSECL_ENGINES", value_name = "N")]
    engines: Option<NonZeroUsize>,
    /// Number type that models compute in; float16 is faster on a GPU
    #[arg(long, env = "DENSECL_PRECISION", value_enum, default_value_t)]
    precision: ComputePrecision,
    /// Shared library of ONNX Runtime; searched in the usual places by default
    #[arg(long, env = "DENSECL_ONNXRUNTIME", value_name = "FILE")]
    onnxruntime: Option<PathBuf>,
}

impl EngineArgs {
    fn options(&self) -> EngineOptions {
        let cores = || available_parallelism().map_or(1, NonZeroUsize::get);
        EngineOptions {
            library: self.onnxruntime.clone(),
            device: self.device.clone(),
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            engines: self.engines.map(NonZeroUsize::get),
            precision: match self.precision {
                ComputePrecision::Float32 => Precision::Float32,
                ComputePrecision::Float16 => Precision::Float16,
            },
        }
    }
}

/// The floating-point type of a model's arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ComputePrecision {
    /// 24 significant bits
    #[default]
    Float32,
    /// 11 significant bits
    Float16,
}

/// How the cells of a map become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolName {
    /// The mean
    Mean,
    /// The largest value
    Max,
    /// The generalised mean (GeM) with exponent 3
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

/// Format of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text for people
    #[default]
    Text,
    /// One JSON document per line
    Json,
}

/// Format of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Text for people
    #[default]
    Text,
    /// JSON for programs
    Json,
}

/// Settings of a server.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Address to listen on, such as localhost:8080 or :8080 for all addresses; a port alone is one of
    /// 127.0.0.1
    #[arg(long, env = "DENSECL_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080",
        value_parser = parse_listen_address)]
    listen: SocketAddr,
    #[command(flatten)]
    administration: AdministrationArgs,
    #[command(flatten)]
    repository: RepositoryArgs,
    #[command(flatten)]
    engine: EngineArgs,
    /// Layers to run once before the first request, LAYER or LAYER@SIDE, separated by commas; the
    /// default layer at the default side always runs
    #[arg(long, env = "DENSECL_WARM_UP", value_name = "LAYER", value_delimiter = ',')]
    warm_up: Vec<WarmUpLayers>,
    /// Images of equal size that run together; on a CPU only small ones do
    #[arg(long, env = "DENSECL_MAX_BATCH", value_name = "N", default_value = "32")]
    max_batch: NonZeroUsize,
    /// Milliseconds that an image waits for others of its size; by default 0 on a CPU, 2 on a GPU
    #[arg(long, env = "DENSECL_MAX_QUEUE_MS", value_name = "MS")]
    max_queue_ms: Option<u32>,
    /// Images that are decoded, wait or run at a time; more are refused
    #[arg(long, env = "DENSECL_MAX_IN_FLIGHT", value_name = "N", default_value = "128")]
    max_in_flight: NonZeroUsize,
    /// Memory for pixels, feature maps and replies of all requests together, such as 512MiB, 1.5GiB or 2GB
    #[arg(long, env = "DENSECL_MAX_MEMORY", value_name = "SIZE", default_value = "2GiB")]
    max_memory: ByteSize,
    /// Largest side that a request may ask for, in pixels
    #[arg(long, env = "DENSECL_MAX_SIDE", value_name = "PX", default_value_t = 2048,
        value_parser = clap::value_parser!(u32).range(32..=16384))]
    max_side: u32,
    /// Largest body of a request
    #[arg(long, env = "DENSECL_MAX_BODY", value_name = "SIZE", default_value = "32MiB")]
    max_body: ByteSize,
    /// Most pixels of an image, checked by its header
    #[arg(long, env = "DENSECL_MAX_PIXELS", value_name = "N", default_value_t = 50_000_000,
        value_parser = clap::value_parser!(u64).range(1..))]
    max_pixels: u64,
    /// Most images of a request
    #[arg(long, env = "DENSECL_MAX_IMAGES", value_name = "N", default_value = "32")]
    max_images: NonZeroUsize,
    /// Largest reply
    #[arg(long, env = "DENSECL_MAX_RESPONSE", value_name = "SIZE", default_value = "1GiB")]
    max_response: ByteSize,
    /// Time for a whole request, such as 500ms, 30s or 1m30s; a bare number is seconds
    #[arg(long, env = "DENSECL_REQUEST_TIMEOUT", value_name = "TIME", default_value = "30s")]
    request_timeout: DurationValue,
    /// Time for the body of a request to arrive
    #[arg(long, env = "DENSECL_BODY_TIMEOUT", value_name = "TIME", default_value = "10s")]
    body_timeout: DurationValue,
    #[command(flatten)]
    connections: ConnectionArgs,
    #[command(flatten)]
    cache: CacheArgs,
    /// Time between failing /readyz and closing the listeners, for load balancers to notice
    #[arg(long, env = "DENSECL_DRAIN_DELAY", value_name = "TIME", default_value = "0s")]
    drain_delay: DurationValue,
    /// Time for requests to finish after the listeners are closed
    #[arg(long, env = "DENSECL_DRAIN_TIMEOUT", value_name = "TIME", default_value = "30s")]
    drain_timeout: DurationValue,
    /// Origins whose pages may call this server from a browser, separated by commas; * for all
    #[arg(long, env = "DENSECL_CORS_ORIGIN", value_name = "ORIGIN", value_delimiter = ',')]
    cors_origin: Vec<CorsOrigin>,
    #[command(flatten)]
    api_keys: ApiKeyArgs,
    #[command(flatten)]
    traces: TraceArgs,
    /// Format of the log, which goes to standard error
    #[arg(long, env = "DENSECL_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,
}

impl ServeArgs {
    /// Settings of the server.
    pub fn into_config(self) -> Config {
        Config {
            listen: self.listen,
            admin_listen: self.administration.admin_listen,
            models: self.repository.models,
            warm_up: self.warm_up,
            engine: self.engine.options(),
            batching: Batching {
                max_batch: self.max_batch.get(),
                max_wait: self.max_queue_ms.map(|wait| Duration::from_millis(u64::from(wait))),
                max_batch_pixels: None,
            },
            limits: RequestLimits {
                max_side_px: self.max_side,
                max_body_bytes: self.max_body.0,
                max_pixels: self.max_pixels,
                max_response_bytes: self.max_response.0,
                max_images: self.max_images.get(),
                max_points: MAX_POINTS,
                timeout: self.request_timeout.0,
                max_in_flight: self.max_in_flight.get(),
                memory_bytes: self.max_memory.0,
                body_timeout: self.body_timeout.0.min(self.request_timeout.0),
            },
            connections: self.connections.limits(),
            rates: self.connections.rates(),
            cache: self.cache.settings(),
            drain: Drain { delay: self.drain_delay.0, timeout: self.drain_timeout.0 },
            api_keys: self.api_keys.file,
            traces: self.traces.endpoint,
            cors_origins: self.cors_origin,
        }
    }
}

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

/// Arguments of `healthcheck`.
#[derive(Clone, Debug, Args)]
pub struct HealthcheckArgs {
    /// Address that the server listens on
    #[arg(long, env = "DENSECL_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080",
        value_parser = parse_listen_address)]
    pub listen: SocketAddr,
}

/// Arguments of `models`.
#[derive(Clone, Debug, Args)]
pub struct ModelsArgs {
    /// Flags of the model repository.
    #[command(flatten)]
    pub repository: RepositoryArgs,
    /// Format of the list
    #[arg(long, value_enum, default_value_t)]
    pub format: OutputFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default() {
        let parse = |arguments: &[&str]| Cli::try_parse_from(arguments).unwrap().into_command();
        for arguments in
            [&["densecl-server", "--max-side", "512"][..], &["densecl-server", "serve", "--max-side", "512"]]
        {
            let Command::Serve(serve) = parse(arguments) else { panic!("{arguments:?} does not serve") };
            assert_eq!(serve.into_config().limits.max_side_px, 512);
        }
        assert!(matches!(parse(&["densecl-server", "openapi"]), Command::Openapi));
    }

    #[test]
    fn every_flag_has_a_variable() {
        let command = Cli::command();
        let serve = command.get_subcommands().find(|command| command.get_name() == "serve").unwrap();
        for argument in serve.get_arguments().filter(|argument| argument.get_long().is_some_and(|long| long != "help"))
        {
            let long = argument.get_long().unwrap_or_default();
            let expected = format!("DENSECL_{}", long.to_uppercase().replace('-', "_"));
            assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(expected.as_str()), "--{long}");
        }
    }
}
