//! Flags about traces.

use clap::Args;

use crate::spans::CollectorUrl;

/// Where traces go.
#[derive(Clone, Debug, Args)]
pub(super) struct TraceArgs {
    /// Collector that gets a trace of each request by OTLP over HTTP, such as `http://127.0.0.1:4318`;
    /// only in programs that were built with the feature otlp
    #[arg(long = "otlp-endpoint", env = "DENSECL_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) endpoint: Option<CollectorUrl>,
}
