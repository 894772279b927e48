//! Flags about whoever runs the server.

use std::net::SocketAddr;

use clap::Args;

/// Where administrators are let in.
#[derive(Clone, Debug, Args)]
pub(super) struct AdministrationArgs {
    /// Second address, for administrators alone: metrics, probes, models, and loading and unloading
    /// models. Keep it where only they can reach it
    #[arg(long, env = "DENSECL_ADMIN_LISTEN", value_name = "ADDR")]
    pub(super) admin_listen: Option<SocketAddr>,
}
