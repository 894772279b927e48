//! What connections and client addresses may cost.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::SettingError;

/// What a connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Connections that are open at a time. A few more are let in to be told that there are too
    /// many, and to ask for `/livez`, `/readyz` and `/metrics`.
    pub max: usize,
    /// For the head of a request to arrive, from its first byte; on a new connection, from the
    /// start.
    pub header_timeout: Duration,
    /// How long a connection stays open between two requests.
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

/// How often one client may ask for work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientRates {
    /// Per client address; no limit by default.
    pub per_address: Option<Rate>,
    /// Requests at once above the steady rate; a second's worth by default.
    pub burst: Option<NonZeroU32>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// Requests per time, written as `20/s`, `600/m` or `5000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: NonZeroU32,
    per: Duration,
}

impl Rate {
    /// The time in which one more request is granted.
    pub fn interval(&self) -> Duration {
        self.per / self.requests.get()
    }

    /// Requests of one second, at least one.
    pub fn per_second(&self) -> NonZeroU32 {
        let per_second = u64::from(self.requests.get()) / self.per.as_secs().max(1);
        NonZeroU32::new(u32::try_from(per_second).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN)
    }
}

/// As it is written in a setting.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.requests)
    }
}

impl FromStr for Rate {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Finer than a microsecond an interval would round to nothing.
        const MAX_PER_SECOND: u32 = 1_000_000;
        let units = [("s", 1), ("m", 60), ("h", 3600)];
        let rate = text.split_once('/').and_then(|(requests, unit)| {
            let requests = requests.trim().parse::<NonZeroU32>().ok()?;
            let (_, seconds) = units.into_iter().find(|(name, _)| *name == unit.trim())?;
            Some(Self { requests, per: Duration::from_secs(seconds) })
        });
        rate.filter(|rate| rate.requests.get() <= MAX_PER_SECOND).ok_or_else(|| SettingError {
            text: text.to_owned(),
            expected: "a rate of at most 1000000: use N/s, N/m or N/h, such as 20/s",
        })
    }
}

/// A proxy's address, `10.0.0.7`, or a network of them, `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyNetwork(pub IpNet);

impl FromStr for ProxyNetwork {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()));
        network.map(Self).map_err(|_| SettingError {
            text: text.to_owned(),
            expected: "an address or a network, such as 10.0.0.7 or 10.0.0.0/8",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rates() {
        let rate: Rate = "20/s".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_millis(50), 20));
        let rate: Rate = "600/m".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_millis(100), 10));
        let rate: Rate = "5 / h".parse().unwrap();
        assert_eq!((rate.interval(), rate.per_second().get()), (Duration::from_mins(12), 1));
        for text in ["20/s", "600/m", "5/h"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
        for wrong in ["", "20", "0/s", "-1/s", "20/d", "1.5/s", "20/s/s", "1000001/s"] {
            assert!(wrong.parse::<Rate>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_networks() {
        let network: ProxyNetwork = "10.0.0.7".parse().unwrap();
        assert_eq!(network.0.to_string(), "10.0.0.7/32");
        for right in ["10.0.0.0/8", "::1", "fd00::/8"] {
            assert!(right.parse::<ProxyNetwork>().is_ok(), "{right}");
        }
        for wrong in ["", "proxy", "10.0.0.0/33", "10.0.0"] {
            assert!(wrong.parse::<ProxyNetwork>().is_err(), "{wrong}");
        }
    }
}
