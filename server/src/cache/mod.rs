//! Cache of computed features.
//!
//! There are two tiers: memory, bounded by bytes, and an optional Redis that replicas share. A key is the image's content
//! and everything else that its features depend on ([`FeatureKey`]), so an entry is never stale. A [`FeatureId`] is the
//! hash of a key: it finds an entry without the image.
//!
//! This module computes no features and knows nothing of HTTP. Concurrent callers of one key share one computation
//! ([`SingleFlight`]); failures are never stored.

mod entry;
mod features;
mod key;
mod memory;
mod metrics;
mod redis_address;
mod redis_tier;
mod settings;
mod single_flight;

use std::sync::Arc;

pub use self::features::{CachedFeatures, CachedMaps, FeatureMismatch, MapsKind};
pub use self::key::{FeatureId, FeatureIdError, FeatureKey, Recipe};
use self::memory::MemoryTier;
pub use self::metrics::CacheMetrics;
use self::metrics::CacheTier;
pub use self::redis_address::{RedisAddress, RedisAddressError};
use self::redis_tier::RedisTier;
pub use self::settings::{CacheSettings, RedisSettings};
pub use self::single_flight::{Role, SharedComputation, SingleFlight};

/// Checks that an entry of another process fits a model that is served here.
pub type EntryCheck = Arc<dyn Fn(&CachedFeatures) -> Result<(), FeatureMismatch> + Send + Sync>;

/// The tiers of the cache; clones share them.
#[derive(Clone, Debug)]
pub struct FeatureCache(Arc<Tiers>);

#[derive(Debug)]
struct Tiers {
    memory: MemoryTier,
    redis: Option<RedisTier>,
    /// Running lookups in Redis.
    lookups: SingleFlight<FeatureId, Option<Arc<CachedFeatures>>>,
    metrics: CacheMetrics,
}

/// The cache cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the address of Redis")]
pub struct CacheError(#[from] redis::RedisError);

impl FeatureCache {
    /// Starts the tiers of `settings`; `None` if there are none. With Redis it must be called within a runtime of tokio;
    /// it does not wait for Redis.
    ///
    /// # Errors
    /// If no client can be made for the address of Redis.
    pub fn start(settings: &CacheSettings, metrics: &CacheMetrics) -> Result<Option<Self>, CacheError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let redis = settings.redis.clone().map(|redis| RedisTier::start(redis, metrics.clone())).transpose()?;
        let memory = MemoryTier::new(settings.memory_bytes, metrics.clone());
        let tiers = Tiers { memory, redis, lookups: SingleFlight::default(), metrics: metrics.clone() };
        Ok(Some(Self(Arc::new(tiers))))
    }

    /// Looks for features in all tiers, as `kind` or as their layers. An entry of another process is returned only if it
    /// passes `check`. Takes no longer than the settings allow for Redis.
    pub async fn find(&self, id: FeatureId, kind: MapsKind, check: EntryCheck) -> Option<Arc<CachedFeatures>> {
        let Tiers { memory, lookups, metrics, .. } = &*self.0;
        if let Some(found) = self.find_in_memory(id, kind).await {
            metrics.hit(CacheTier::Memory);
            return Some(found);
        }
        metrics.miss(CacheTier::Memory);
        self.0.redis.as_ref()?;
        let tiers = Arc::clone(&self.0);
        let lookup = async move {
            let redis = tiers.redis.as_ref()?;
            let found = Arc::new(redis.get(id, |features| check(features)).await?);
            tiers.memory.insert(Arc::clone(&found)).await;
            Some(found)
        };
        let found = lookups.join_or_start(id, lookup).0.await;
        // Another request's computation may have ended after both tiers were read.
        if found.is_some() { found } else { memory.get(id, MapsKind::Layers).await }
    }

    /// Looks for features in memory alone, as `kind` or as their layers. Does not count a hit or a miss.
    pub async fn find_in_memory(&self, id: FeatureId, kind: MapsKind) -> Option<Arc<CachedFeatures>> {
        let memory = &self.0.memory;
        match memory.get(id, kind).await {
            None if kind != MapsKind::Layers => memory.get(id, MapsKind::Layers).await,
            found => found,
        }
    }

    /// Stores computed features in all tiers.
    pub async fn insert(&self, features: Arc<CachedFeatures>) {
        let Tiers { memory, redis, .. } = &*self.0;
        memory.insert(Arc::clone(&features)).await;
        if let (Some(redis), MapsKind::Layers) = (redis, features.kind()) {
            redis.write(features);
        }
    }

    /// Counts an image that waits for another request's computation.
    pub fn count_coalesced(&self) {
        self.0.metrics.coalesced();
    }
}
