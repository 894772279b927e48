//! Features that were computed, kept for those who ask again.
//!
//! There are two tiers: memory, bounded by bytes, and, if there is one, a Redis that replicas share. Features are named by
//! the picture's content and by everything that they depend on beside ([`FeatureKey`]), so that an entry never goes
//! stale: it is right, or it is gone. A [`FeatureId`] is that name, and finds the entry without the picture.
//!
//! Here nothing is computed, and nothing is known of HTTP. What several callers ask for at once they wait for together
//! ([`Flights`]); failures are never kept.

mod entry;
mod features;
mod key;
mod memory;
mod redis_tier;
mod single_flight;

use std::sync::Arc;

pub use self::features::{CachedFeatures, Form, Maps, Unfit};
pub use self::key::{FeatureId, FeatureIdError, FeatureKey, Recipe};
use self::memory::MemoryTier;
use self::redis_tier::RedisTier;
pub use self::redis_tier::{RedisAddress, RedisAddressError};
pub use self::single_flight::{Flight, Flights, Role};
use crate::config::CacheSettings;
use crate::metrics::{CacheMetrics, CacheTier};

/// Holds an entry of another process against what is served here.
pub type Check = Arc<dyn Fn(&CachedFeatures) -> Result<(), Unfit> + Send + Sync>;

/// The tiers; cloning shares them.
#[derive(Clone, Debug)]
pub struct FeatureCache(Arc<Tiers>);

#[derive(Debug)]
struct Tiers {
    memory: MemoryTier,
    redis: Option<RedisTier>,
    /// Lookups in Redis.
    lookups: Flights<FeatureId, Option<Arc<CachedFeatures>>>,
    metrics: CacheMetrics,
}

/// The cache cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the address of Redis")]
pub struct CacheError(#[from] redis::RedisError);

impl FeatureCache {
    /// The tiers of `settings`; `None` if there are none. With Redis it must be called within a runtime of tokio; it does
    /// not wait for Redis.
    ///
    /// # Errors
    /// If the address of Redis is none that can be connected to.
    pub fn start(settings: &CacheSettings, metrics: &CacheMetrics) -> Result<Option<Self>, CacheError> {
        if !settings.is_on() {
            return Ok(None);
        }
        let redis = settings.redis.clone().map(|redis| RedisTier::start(redis, metrics.clone())).transpose()?;
        let memory = MemoryTier::new(settings.memory_bytes, metrics.clone());
        Ok(Some(Self(Arc::new(Tiers { memory, redis, lookups: Flights::default(), metrics: metrics.clone() }))))
    }

    /// Features by name, in `form` or as their layers, wherever they are found; what another process wrote only if it
    /// passes `check`. This takes no longer than the settings allow for Redis.
    pub async fn find(&self, id: FeatureId, form: Form, check: Check) -> Option<Arc<CachedFeatures>> {
        let Tiers { memory, lookups, metrics, .. } = &*self.0;
        if let Some(found) = self.recall(id, form).await {
            metrics.hit(CacheTier::memory);
            return Some(found);
        }
        metrics.missed(CacheTier::memory);
        self.0.redis.as_ref()?;
        let tiers = Arc::clone(&self.0);
        let lookup = async move {
            let redis = tiers.redis.as_ref()?;
            let found = Arc::new(redis.get(id, |features| check(features)).await?);
            tiers.memory.insert(Arc::clone(&found)).await;
            Some(found)
        };
        let found = lookups.join_or_lead(id, lookup).0.await;
        // Both tiers may have been looked into a moment before another request's computation ended.
        if found.is_some() { found } else { memory.get(id, Form::Layers).await }
    }

    /// Features in memory, in `form` or as their layers; nothing is counted.
    pub async fn recall(&self, id: FeatureId, form: Form) -> Option<Arc<CachedFeatures>> {
        let memory = &self.0.memory;
        match memory.get(id, form).await {
            None if form != Form::Layers => memory.get(id, Form::Layers).await,
            found => found,
        }
    }

    /// Keeps what was computed.
    pub async fn keep(&self, features: Arc<CachedFeatures>) {
        let Tiers { memory, redis, .. } = &*self.0;
        memory.insert(Arc::clone(&features)).await;
        if let (Some(redis), Form::Layers) = (redis, features.form()) {
            redis.write(features);
        }
    }

    /// Notes an image that waits for another's computation.
    pub fn coalesced(&self) {
        self.0.metrics.coalesced();
    }
}
