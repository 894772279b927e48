//! Flags of connections and clients' rates.

use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use super::values::{DurationValue, ProxyNetwork};
use crate::config::{ClientRates, ConnectionLimits};
use crate::rate::Rate;

/// Flags of connections and clients' rates.
#[derive(Clone, Debug, Args)]
pub(super) struct ConnectionArgs {
    /// Connections that are open at a time
    #[arg(long, env = "DENSECL_MAX_CONNECTIONS", value_name = "N", default_value = "512")]
    max_connections: NonZeroUsize,
    /// Time for the head of a request to arrive
    #[arg(long, env = "DENSECL_HEADER_TIMEOUT", value_name = "TIME", default_value = "10s")]
    header_timeout: DurationValue,
    /// Time that a connection stays open between requests
    #[arg(long, env = "DENSECL_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s")]
    idle_timeout: DurationValue,
    /// Time for a client to take the next 64 KiB of a reply
    #[arg(long, env = "DENSECL_WRITE_TIMEOUT", value_name = "TIME", default_value = "30s")]
    write_timeout: DurationValue,
    /// Most requests for work of one client address, such as 20/s, 600/m or 5000/h; no limit by default
    #[arg(long, env = "DENSECL_RATE_LIMIT", value_name = "RATE")]
    rate_limit: Option<Rate>,
    /// Requests that an address may send at once; as many as the rate allows in a second by default
    #[arg(long, env = "DENSECL_RATE_BURST", value_name = "N", requires = "rate_limit")]
    rate_burst: Option<NonZeroU32>,
    /// Addresses or networks of proxies whose X-Forwarded-For is believed, separated by commas
    #[arg(long, env = "DENSECL_TRUSTED_PROXIES", value_name = "NET", value_delimiter = ',')]
    trusted_proxies: Vec<ProxyNetwork>,
}

impl ConnectionArgs {
    pub(super) fn limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            max: self.max_connections.get(),
            header_timeout: self.header_timeout.0,
            idle_timeout: self.idle_timeout.0,
            write_timeout: self.write_timeout.0,
        }
    }

    pub(super) fn rates(&self) -> ClientRates {
        ClientRates {
            per_address: self.rate_limit,
            burst: self.rate_burst,
            trusted_proxies: self.trusted_proxies.iter().map(|network| network.0).collect(),
        }
    }
}
