//! Settings of the cache.

use std::time::Duration;

use super::redis_address::RedisAddress;

/// Tiers of the cache.
#[derive(Clone, Debug)]
pub struct CacheSettings {
    /// Bytes that features may take in this process; 0 keeps none.
    pub memory_bytes: u64,
    /// Second tier, which replicas share.
    pub redis: Option<RedisSettings>,
}

impl CacheSettings {
    /// No tier: every request computes its own features.
    pub const OFF: Self = Self { memory_bytes: 0, redis: None };

    /// True if there is a tier.
    pub fn is_on(&self) -> bool {
        self.memory_bytes > 0 || self.redis.is_some()
    }
}

/// The tier in Redis.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// Address and credentials.
    pub address: RedisAddress,
    /// The longest that a request waits for Redis.
    pub timeout: Duration,
    /// Life of an entry, from when it is written.
    pub time_to_live: Duration,
    /// The largest entry that is written or read.
    pub max_entry_bytes: usize,
}
