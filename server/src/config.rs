//! Validated settings of a server.
//!
//! [`Config`] puts together the settings of all parts. The parts below the serving layer own their settings and do not
//! import this module.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cache::CacheSettings;
use crate::spans::CollectorUrl;
use densecl_inference::batch::{BatcherOptions, Batching, QueueLimits};
use densecl_inference::onnx_runtime::EngineOptions;
use densecl_inference::registry::WarmUpLayers;

mod connections;

pub use self::connections::{ClientRates, ConnectionLimits};

/// Pixels of waiting images, in multiples of the largest image.
const QUEUED_LARGEST_IMAGES: u64 = 16;

/// All settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub listen: SocketAddr,
    /// Second address to listen on, for administrators.
    pub admin_listen: Option<SocketAddr>,
    /// Folder of the model repository.
    pub models: PathBuf,
    /// Layers that are run once before the first request, beside the default ones.
    pub warm_up: Vec<WarmUpLayers>,
    /// Device, threads and library of the engines.
    pub engine: EngineOptions,
    /// Limits of one batch.
    pub batching: Batching,
    /// Limits of a request.
    pub limits: RequestLimits,
    /// Limits of a connection.
    pub connections: ConnectionLimits,
    /// Limits of one client's rate.
    pub rates: ClientRates,
    /// Tiers of the cache of features.
    pub cache: CacheSettings,
    /// Times of an orderly stop.
    pub drain: Drain,
    /// File of API keys; without one, requests need no key.
    pub api_keys: Option<PathBuf>,
    /// Collector that traces are exported to.
    pub traces: Option<CollectorUrl>,
    /// Origins whose pages may call this server from a browser; none by default.
    pub cors_origins: Vec<CorsOrigin>,
}

/// Limits of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Longer side that images are resized to, in pixels.
    pub max_side_px: u32,
    /// Bytes of a body.
    pub max_body_bytes: u64,
    /// Pixels of an image, by its header.
    pub max_pixels: u64,
    /// Bytes of a reply.
    pub max_response_bytes: u64,
    /// Images of a request.
    pub max_images: usize,
    /// Points of a request.
    pub max_points: usize,
    /// Time for a whole request.
    pub timeout: Duration,
    /// Images that are decoded, wait or run at a time; more are refused.
    pub max_in_flight: usize,
    /// Bytes of pixels, feature maps and replies that all requests together may hold.
    pub memory_bytes: u64,
    /// Time for the body of a request to arrive, within `timeout`.
    pub body_timeout: Duration,
}

/// Times of an orderly stop.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Between failing `/readyz` and closing the listeners, so that load balancers notice.
    pub delay: Duration,
    /// For requests to finish after the listeners are closed.
    pub timeout: Duration,
}

impl Config {
    /// Options of the engines, the queue and the batches.
    pub fn batcher(&self) -> BatcherOptions {
        let max_image_pixels = u64::from(self.limits.max_side_px).pow(2);
        BatcherOptions {
            engine: self.engine.clone(),
            batching: self.batching,
            limits: QueueLimits {
                max_requests: self.limits.max_in_flight,
                max_pixels: max_image_pixels.saturating_mul(QUEUED_LARGEST_IMAGES),
                max_image_pixels,
            },
        }
    }
}

/// An origin, `https://example.org`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(String);

/// Text that is not a [`CorsOrigin`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an origin: use https://host[:port] or *")]
pub struct CorsOriginError {
    text: String,
}

impl CorsOrigin {
    /// The origin as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CorsOrigin {
    type Err = CorsOriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = host.is_some_and(|host| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@'))
        });
        if text == "*" || is_origin {
            Ok(Self(text.to_owned()))
        } else {
            Err(CorsOriginError { text: text.to_owned() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_origins() {
        for right in ["*", "https://example.org", "http://localhost:8080"] {
            assert_eq!(right.parse::<CorsOrigin>().map(|origin| origin.as_str().to_owned()).as_deref(), Ok(right));
        }
        for wrong in ["", "example.org", "https://", "https://a/b", "https://user@a"] {
            assert!(wrong.parse::<CorsOrigin>().is_err(), "{wrong}");
        }
    }
}
