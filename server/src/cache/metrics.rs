//! Metrics of the cache.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A tier of the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheTier {
    /// This process.
    Memory,
    /// Redis.
    Redis,
}

/// Kind of an error of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RedisErrorKind {
    /// No answer in time.
    Timeout,
    /// No connection, or a broken one.
    Connection,
    /// A command was refused.
    Refused,
    /// No memory is left for a write.
    Full,
    /// An entry is not as it was written.
    BadEntry,
}

/// Reason why features were not written to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WriteDropReason {
    /// Too many other writes wait.
    QueueFull,
    /// Redis is not used for now.
    Unavailable,
    /// The features are larger than an entry may be.
    TooLarge,
    /// Redis did not take the write.
    Failed,
}

impl CacheTier {
    fn label(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Redis => "redis",
        }
    }
}

impl RedisErrorKind {
    fn label(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Full => "full",
            Self::BadEntry => "bad_entry",
        }
    }
}

impl WriteDropReason {
    fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Unavailable => "unavailable",
            Self::TooLarge => "too_large",
            Self::Failed => "failed",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// Metrics of the cache and its tiers.
#[derive(Clone, Debug)]
pub struct CacheMetrics {
    hits: Family<TierLabels, Counter>,
    misses: Family<TierLabels, Counter>,
    coalesced: Counter,
    entries: Gauge,
    bytes: Gauge,
    limit: Gauge,
    evictions: Counter,
    redis_up: Gauge,
    redis_errors: Family<ReasonLabels, Counter>,
    redis_lookups: Histogram,
    dropped_writes: Family<ReasonLabels, Counter>,
}

impl CacheMetrics {
    /// Registers the metrics in `registry`, under names that begin with `cache_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            hits: Family::default(),
            misses: Family::default(),
            coalesced: Counter::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            limit: Gauge::default(),
            evictions: Counter::default(),
            redis_up: Gauge::default(),
            redis_errors: Family::default(),
            // 0.1 ms to 0.8 s.
            redis_lookups: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            dropped_writes: Family::default(),
        };
        registry.register("cache_hits", "Features found in a tier of the cache", metrics.hits.clone());
        registry.register("cache_misses", "Features not found in a tier of the cache", metrics.misses.clone());
        let help = "Images that waited for the same features of another request instead of computing them";
        registry.register("cache_coalesced", help, metrics.coalesced.clone());
        registry.register("cache_entries", "Entries in memory", metrics.entries.clone());
        registry.register("cache_bytes", "Memory that the entries take", metrics.bytes.clone());
        registry.register("cache_limit_bytes", "Most memory that the entries may take", metrics.limit.clone());
        registry.register("cache_evictions", "Entries removed for lack of room", metrics.evictions.clone());
        registry.register("cache_redis_up", "1 while Redis is used, 0 while it is not", metrics.redis_up.clone());
        registry.register("cache_redis_errors", "Errors of Redis", metrics.redis_errors.clone());
        let help = "Time of looking for features in Redis, as requests wait for it";
        registry.register("cache_redis_lookup_seconds", help, metrics.redis_lookups.clone());
        let help = "Features that were not written to Redis";
        registry.register("cache_redis_dropped_writes", help, metrics.dropped_writes.clone());
        metrics
    }

    /// Counts features that were found.
    pub(super) fn hit(&self, tier: CacheTier) {
        self.hits.get_or_create(&TierLabels { tier: tier.label() }).inc();
    }

    /// Counts features that were not found.
    pub(super) fn miss(&self, tier: CacheTier) {
        self.misses.get_or_create(&TierLabels { tier: tier.label() }).inc();
    }

    /// Counts an image that waits for another request's computation.
    pub(super) fn coalesced(&self) {
        self.coalesced.inc();
    }

    /// Sets what the memory tier holds.
    pub(super) fn set_size(&self, entries: u64, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets what the memory tier may hold.
    pub(super) fn set_limit(&self, bytes: u64) {
        self.limit.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts an entry that was removed for lack of room.
    pub(super) fn evicted(&self) {
        self.evictions.inc();
    }

    /// Sets whether Redis is used.
    pub(super) fn set_redis_up(&self, up: bool) {
        self.redis_up.set(i64::from(up));
    }

    /// Counts an error of Redis.
    pub(super) fn redis_error(&self, kind: RedisErrorKind) {
        self.redis_errors.get_or_create(&ReasonLabels { reason: kind.label() }).inc();
    }

    /// Observes how long a request waited for Redis.
    pub(super) fn redis_lookup(&self, duration: Duration) {
        self.redis_lookups.observe(duration.as_secs_f64());
    }

    /// Counts features that were not written to Redis.
    pub(super) fn write_dropped(&self, reason: WriteDropReason) {
        self.dropped_writes.get_or_create(&ReasonLabels { reason: reason.label() }).inc();
    }
}
