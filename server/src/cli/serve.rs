//! Flags of `serve`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use clap::Args;

use super::administration::AdministrationArgs;
use super::cache::CacheArgs;
use super::connections::ConnectionArgs;
use super::engine::EngineArgs;
use super::keys::ApiKeyArgs;
use super::traces::TraceArgs;
use super::values::{ByteSize, DurationValue, parse_listen_address};
use super::{LogFormat, RepositoryArgs};
use crate::config::{Config, CorsOrigin, Drain, RequestLimits};
use densecl_inference::batch::Batching;
use densecl_inference::registry::WarmUpLayers;

/// Most points of one request.
const MAX_POINTS: usize = 10_000;

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
