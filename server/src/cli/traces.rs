//! Flags of traces.

use clap::Args;

use crate::spans::CollectorUrl;

/// Flags of traces.
#[derive(Clone, Debug, Args)]
pub(super) struct TraceArgs {
    /// Collector that receives a trace of each request by OTLP over HTTP, such as `http://127.0.0.1:4318`;
    /// needs a program that was built with the feature otlp
    #[arg(long = "otlp-endpoint", env = "DENSECL_OTLP_ENDPOINT", value_name = "URL")]
    pub(super) endpoint: Option<CollectorUrl>,
}
