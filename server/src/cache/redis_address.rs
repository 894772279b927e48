//! Address of Redis.

use std::fmt;
use std::str::FromStr;

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

/// Address and credentials of Redis. `Debug` and `Display` show the host and the port, or the path, alone.
#[derive(Clone)]
pub struct RedisAddress(ConnectionInfo);

/// Text that is not an address. The message does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisAddressError {
    /// Not a URL of this form.
    #[error(
        "is not redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss:// for TLS, or unix:///PATH?db=DB&user=USER&pass=PASSWORD, with special characters written %XX"
    )]
    Malformed,
    /// TLS without checking the certificate.
    #[error(
        "asks not to check the certificate of Redis: name the file of its authority in the environment variable SSL_CERT_FILE instead"
    )]
    Unchecked,
}

impl RedisAddress {
    pub(super) fn info(&self) -> &ConnectionInfo {
        &self.0
    }

    /// True if the connection is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.0.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl FromStr for RedisAddress {
    type Err = RedisAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let info = text.trim().into_connection_info().map_err(|_| RedisAddressError::Malformed)?;
        match info.addr() {
            ConnectionAddr::TcpTls { insecure: true, .. } => Err(RedisAddressError::Unchecked),
            _ => Ok(Self(info)),
        }
    }
}

impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{host}:{port}"),
            ConnectionAddr::Unix(path) => write!(f, "{}", path.display()),
            _ => f.write_str("another address"),
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
        for (text, expected) in [
            ("redis://localhost", "localhost:6379"),
            ("rediss://user:s3cret@cache.internal:6380/2", "cache.internal:6380"),
            ("redis://[::1]:6380", "::1:6380"),
            ("redis+unix:///run/redis.sock?db=1&pass=s3cret", "/run/redis.sock"),
            ("unix:///run/redis.sock", "/run/redis.sock"),
            ("valkey://localhost", "localhost:6379"),
        ] {
            assert_eq!(text.parse::<RedisAddress>().unwrap().to_string(), expected);
        }
        assert!("rediss://host".parse::<RedisAddress>().unwrap().is_tls());
    }

    #[test]
    fn other_text_is_refused() {
        let unchecked = "rediss://:s3cret@host#insecure".parse::<RedisAddress>();
        assert_eq!(unchecked.unwrap_err(), RedisAddressError::Unchecked);
        for wrong in ["", "localhost", "http://localhost", "redis://host:port", "redis://host/db", "unix://"] {
            assert_eq!(wrong.parse::<RedisAddress>().unwrap_err(), RedisAddressError::Malformed, "{wrong}");
        }
    }
}
