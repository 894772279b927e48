//! What the cache of features counts.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Where features are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels")]
pub enum CacheTier {
    /// In this process.
    memory,
    /// In Redis.
    redis,
}

/// What is wrong with Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels")]
pub enum RedisFault {
    /// It did not answer in time.
    timeout,
    /// It cannot be reached, or the connection broke.
    connection,
    /// It refused a command.
    refused,
    /// It has no memory left for what is written.
    full,
    /// It answered with an entry that is not as it was written.
    bad_entry,
}

/// Why features were not written to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels")]
pub enum DroppedWrite {
    /// Too many wait to be written.
    queue_full,
    /// Redis is left alone for now.
    unavailable,
    /// They are larger than an entry may be.
    too_large,
    /// Redis did not take them.
    failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TierLabels {
    tier: CacheTier,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    reason: RedisFault,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: DroppedWrite,
}

/// The cache and its tiers.
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
    redis_faults: Family<FaultLabels, Counter>,
    redis_lookups: Histogram,
    dropped_writes: Family<DroppedLabels, Counter>,
}

impl CacheMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            hits: Family::default(),
            misses: Family::default(),
            coalesced: Counter::default(),
            entries: Gauge::default(),
            bytes: Gauge::default(),
            limit: Gauge::default(),
            evictions: Counter::default(),
            redis_up: Gauge::default(),
            redis_faults: Family::default(),
            // 0.1 ms to 0.8 s.
            redis_lookups: Histogram::new(exponential_buckets(0.0001, 2.0, 14)),
            dropped_writes: Family::default(),
        };
        registry.register("cache_hits", "Features found in a tier of the cache", metrics.hits.clone());
        registry.register("cache_misses", "Features looked for in a tier of the cache in vain", metrics.misses.clone());
        let help = "Images that waited for the same features of another request instead of computing them";
        registry.register("cache_coalesced", help, metrics.coalesced.clone());
        registry.register("cache_entries", "Entries in memory", metrics.entries.clone());
        registry.register("cache_bytes", "Memory that they take", metrics.bytes.clone());
        registry.register("cache_limit_bytes", "Most memory that they may take", metrics.limit.clone());
        registry.register("cache_evictions", "Entries that left for lack of room", metrics.evictions.clone());
        registry.register(
            "cache_redis_up",
            "1 while Redis is used, 0 while it is left alone",
            metrics.redis_up.clone(),
        );
        registry.register("cache_redis_errors", "What went wrong with Redis", metrics.redis_faults.clone());
        let help = "Time of looking for features in Redis, as requests wait for it";
        registry.register("cache_redis_lookup_seconds", help, metrics.redis_lookups.clone());
        let help = "Features that were not written to Redis";
        registry.register("cache_redis_dropped_writes", help, metrics.dropped_writes.clone());
        metrics
    }

    /// Notes that features were found.
    pub fn hit(&self, tier: CacheTier) {
        self.hits.get_or_create(&TierLabels { tier }).inc();
    }

    /// Notes that features were not found.
    pub fn missed(&self, tier: CacheTier) {
        self.misses.get_or_create(&TierLabels { tier }).inc();
    }

    /// Notes an image that waits for another's computation.
    pub fn coalesced(&self) {
        self.coalesced.inc();
    }

    /// Sets what the memory tier holds.
    pub fn holds(&self, entries: u64, bytes: u64) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets what the memory tier may hold.
    pub fn limit(&self, bytes: u64) {
        self.limit.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes an entry that left for lack of room.
    pub fn evicted(&self) {
        self.evictions.inc();
    }

    /// Sets whether Redis is used.
    pub fn redis_up(&self, up: bool) {
        self.redis_up.set(i64::from(up));
    }

    /// Notes that something went wrong with Redis.
    pub fn redis_failed(&self, reason: RedisFault) {
        self.redis_faults.get_or_create(&FaultLabels { reason }).inc();
    }

    /// Notes how long a request waited for Redis.
    pub fn redis_lookup(&self, duration: Duration) {
        self.redis_lookups.observe(duration.as_secs_f64());
    }

    /// Notes features that were not written to Redis.
    pub fn write_dropped(&self, reason: DroppedWrite) {
        self.dropped_writes.get_or_create(&DroppedLabels { reason }).inc();
    }
}
