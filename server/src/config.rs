//! Settings that are already valid: what the command line becomes before anything starts.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::spans::CollectorUrl;
use densecl_inference::batch::{BatcherOptions, Batching, QueueLimits};
use densecl_inference::onnx_runtime::EngineOptions;
use densecl_inference::registry::WarmUpLayers;

mod cache;
mod connections;

pub use self::cache::{ByteSizeOrNone, CacheSettings, RedisSettings};
pub use self::connections::{ClientRates, ConnectionLimits, ProxyNetwork, Rate};

/// Pixels of waiting images, in multiples of the largest image.
const QUEUED_LARGEST_IMAGES: u64 = 16;

/// All settings of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where it listens to administrators, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// The model repository.
    pub models: PathBuf,
    /// Layers that are made ready beside the default ones.
    pub rehearsals: Vec<WarmUpLayers>,
    /// Device, threads and the library behind them.
    pub engine: EngineOptions,
    /// What may share a run.
    pub batching: Batching,
    /// What a request may ask for.
    pub limits: RequestLimits,
    /// What a connection may cost.
    pub connections: ConnectionLimits,
    /// How often one client may ask for work.
    pub rates: ClientRates,
    /// What is kept between requests.
    pub cache: CacheSettings,
    /// How it stops.
    pub drain: Drain,
    /// The file of API keys; without one everyone may ask.
    pub api_keys: Option<PathBuf>,
    /// The collector that gets traces, if there is one.
    pub traces: Option<CollectorUrl>,
    /// Origins whose pages may call this server from a browser; none by default.
    pub cors_origins: Vec<CorsOrigin>,
}

/// What a request may ask for.
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

/// How a server stops.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// Between failing `/readyz` and closing the door, so that load balancers notice.
    pub delay: Duration,
    /// For requests to finish, after the door is closed.
    pub timeout: Duration,
}

impl Config {
    /// The engines, the queue and the batches that these settings make.
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

/// Bytes, written as `512`, `64KiB`, `32MiB` or `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(pub u64);

/// A time, written as `250ms`, `30s` or `5m`; a bare number is seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// An origin, `https://example.org`, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsOrigin(String);

impl CorsOrigin {
    /// The origin as a browser sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A setting that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct SettingError {
    text: String,
    expected: &'static str,
}

impl FromStr for ByteSize {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
        let (number, unit) =
            units.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit))).unwrap_or((text, 1_u64));
        let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        bytes.filter(|&bytes| bytes > 0).map(Self).ok_or_else(|| SettingError {
            text: text.to_owned(),
            expected: "a size: use bytes, KiB, MiB or GiB, such as 32MiB",
        })
    }
}

impl FromStr for Span {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0)];
        let (number, unit) =
            units.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit))).unwrap_or((text, 1.0));
        let seconds = number.trim().parse::<f64>().ok().map(|number| number * unit);
        seconds
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
            .map(Self)
            .ok_or_else(|| SettingError { text: text.to_owned(), expected: "a time: use ms, s or m, such as 30s" })
    }
}

impl FromStr for CorsOrigin {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_origin = host.is_some_and(|host| {
            !host.is_empty() && host.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | '@'))
        });
        if text == "*" || is_origin {
            return Ok(Self(text.to_owned()));
        }
        Err(SettingError { text: text.to_owned(), expected: "an origin: use https://host[:port] or *" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        assert_eq!("32MiB".parse(), Ok(ByteSize(32 << 20)));
        assert_eq!("4096".parse(), Ok(ByteSize(4096)));
        for wrong in ["", "0", "-1", "32MB", "99999999999GiB", "1.5GiB"] {
            assert!(wrong.parse::<ByteSize>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_times() {
        assert_eq!("250ms".parse(), Ok(Span(Duration::from_millis(250))));
        assert_eq!("30".parse(), Ok(Span(Duration::from_secs(30))));
        assert_eq!("0.5m".parse(), Ok(Span(Duration::from_secs(30))));
        for wrong in ["", "s", "-1s", "nan", "1h", "1e300"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }

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
