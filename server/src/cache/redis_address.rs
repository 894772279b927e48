//! Address of Redis.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Address and credentials of Redis. `Debug` and `Display` show the host and the port alone.
#[derive(Clone)]
pub struct RedisAddress(ConnectionInfo);

/// Text that is not an address. The message does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisAddressError {
    /// Not a URL of this form.
    #[error("is not redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], with special characters of the password written %XX")]
    Malformed,
    /// TLS is not supported.
    #[error("asks for TLS, which this server does not speak to Redis: use redis:// on a private network, or a tunnel")]
    Tls,
}

impl RedisAddress {
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.0
    }
}

impl FromStr for RedisAddress {
    type Err = RedisAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("rediss:") {
            return Err(RedisAddressError::Tls);
        }
        text.into_connection_info().map(Self).map_err(|_| RedisAddressError::Malformed)
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{host}:{port}"),
            _ => f.write_str("a local socket"),
        }
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_shown_and_the_password_is_not() {
        let address: RedisAddress = "redis://user:s3cret@cache.internal:6380/2".parse().unwrap();
        assert_eq!(format!("{address} {address:?}"), "cache.internal:6380 RedisAddress(cache.internal:6380)");
        assert_eq!("redis://localhost".parse::<RedisAddress>().unwrap().to_string(), "localhost:6379");
    }

    #[test]
    fn other_text_is_refused() {
        assert_eq!("rediss://:s3cret@host".parse::<RedisAddress>().unwrap_err(), RedisAddressError::Tls);
        for wrong in ["", "localhost", "http://localhost", "redis://host:port", "redis://host/db"] {
            assert_eq!(wrong.parse::<RedisAddress>().unwrap_err(), RedisAddressError::Malformed, "{wrong}");
        }
    }
}
