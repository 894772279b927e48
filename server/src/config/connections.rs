//! Limits of connections and of clients' rates.

use std::num::NonZeroU32;
use std::time::Duration;

use ipnet::IpNet;

use crate::rate::Rate;

/// Limits of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections that are open at a time. A few more are accepted: they get the reply that there are too many, and
    /// answers from `/livez`, `/readyz` and `/metrics`.
    pub max: usize,
    /// For the head of a request to arrive, from its first byte; on a new connection, from the start.
    pub header_timeout: Duration,
    /// For a connection to stay open between two requests.
    pub idle_timeout: Duration,
    /// For a client to take the next 64 KiB of a reply.
    pub write_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Below the 1,024 files that a process may commonly open, with room for the rest.
            max: 512,
            header_timeout: Duration::from_secs(10),
            // Above the 60 s for which proxies commonly keep connections: the side that may send a
            // request at any moment should be the one that closes.
            idle_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(30),
        }
    }
}

/// Limits of one client's rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRates {
    /// Rate per client address; no limit by default.
    pub per_address: Option<Rate>,
    /// Requests at once above the steady rate; a second's worth by default.
    pub burst: Option<NonZeroU32>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}
