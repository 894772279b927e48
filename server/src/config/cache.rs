//! What the cache of features may take, and where its second tier is.

use std::str::FromStr;
use std::time::Duration;

use super::{ByteSize, SettingError};
use crate::cache::RedisAddress;

/// What is kept between requests.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// Bytes that features may take in this process; 0 keeps none.
    pub memory_bytes: u64,
    /// A second tier, which replicas share.
    pub redis: Option<RedisSettings>,
}

impl CacheSettings {
    /// Nothing is kept, and every request computes for itself.
    pub const OFF: Self = Self { memory_bytes: 0, redis: None };

    /// Whether anything is kept anywhere.
    pub fn is_on(&self) -> bool {
        self.memory_bytes > 0 || self.redis.is_some()
    }
}

/// The tier in Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Where it is, and what it is told to let us in.
    pub address: RedisAddress,
    /// The longest that a request waits for it.
    pub timeout: Duration,
    /// How long entries live, from when they are written.
    pub time_to_live: Duration,
    /// The largest entry that is written or read.
    pub max_entry_bytes: usize,
}

/// Bytes as [`ByteSize`], or 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSizeOrNone(pub u64);

impl FromStr for ByteSizeOrNone {
    type Err = SettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        text.parse().map(|ByteSize(bytes)| Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_size_here() {
        assert_eq!("0".parse(), Ok(ByteSizeOrNone(0)));
        assert_eq!("1GiB".parse(), Ok(ByteSizeOrNone(1 << 30)));
        for wrong in ["", "-1", "0MiB", "all"] {
            assert!(wrong.parse::<ByteSizeOrNone>().is_err(), "{wrong}");
        }
    }
}
