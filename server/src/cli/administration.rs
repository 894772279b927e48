//! Flags for administrators.

use std::net::SocketAddr;

use clap::Args;

use super::values::parse_admin_address;

/// Flags for administrators.
#[derive(Clone, Debug, Args)]
pub(super) struct AdministrationArgs {
    /// Second address to listen on, for administrators: metrics, probes, models, and loading and
    /// unloading models. Choose one that only administrators can reach
    #[arg(long, env = "DENSECL_ADMIN_LISTEN", value_name = "ADDR", value_parser = parse_admin_address)]
    pub(super) admin_listen: Option<SocketAddr>,
}
