//! Memory tier: bounded by the bytes of its entries, the least recently used are evicted first.

use std::sync::Arc;

use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::features::{CachedFeatures, MapsKind};
use super::key::FeatureId;
use super::metrics::CacheMetrics;

/// Features by id and kind. Each kind is an entry of its own, with its own place in the order of use.
#[derive(Clone, Debug)]
pub(super) struct MemoryTier {
    entries: Cache<(FeatureId, MapsKind), Arc<CachedFeatures>>,
    metrics: CacheMetrics,
}

impl MemoryTier {
    pub(super) fn new(max_bytes: u64, metrics: CacheMetrics) -> Self {
        metrics.set_limit(max_bytes);
        let evicted = metrics.clone();
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            // Not by frequency: an id that was just sent to a client has no uses yet, and will be used soon.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, features: &Arc<CachedFeatures>| u32::try_from(features.bytes()).unwrap_or(u32::MAX))
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evicted.evicted();
                }
            })
            .build();
        Self { entries, metrics }
    }

    pub(super) async fn get(&self, id: FeatureId, form: MapsKind) -> Option<Arc<CachedFeatures>> {
        self.entries.get(&(id, form)).await
    }

    pub(super) async fn insert(&self, features: Arc<CachedFeatures>) {
        self.entries.insert((features.id(), features.kind()), features).await;
        // Evicts at once, not in the background: entries are large, and the bound is on memory.
        self.entries.run_pending_tasks().await;
        self.metrics.set_size(self.entries.entry_count(), self.entries.weighted_size());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::super::features::tests::features;
    use super::*;

    #[tokio::test]
    async fn the_least_recently_used_is_evicted_and_the_bound_holds_after_every_insert() {
        let mut registry = Registry::default();
        let metrics = CacheMetrics::register(&mut registry);
        let [a, b, c] = [b"a", b"b", b"c"].map(|file| Arc::new(features(file)));
        let tier = MemoryTier::new(2 * a.bytes() as u64, metrics);
        let get = async |features: &CachedFeatures| tier.get(features.id(), MapsKind::Layers).await.is_some();
        for features in [&a, &b] {
            tier.insert(Arc::clone(features)).await;
        }
        assert!(get(&a).await && get(&b).await && get(&a).await);
        tier.insert(Arc::clone(&c)).await;
        assert_eq!((get(&a).await, get(&b).await, get(&c).await), (true, false, true));
        assert_eq!(tier.entries.weighted_size(), (a.bytes() + c.bytes()) as u64);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in ["cache_evictions_total 1", "cache_entries 2"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn an_entry_larger_than_the_cache_is_not_stored_and_evicts_nothing() {
        let small = Arc::new(features(b"a"));
        let tier = MemoryTier::new(small.bytes() as u64, CacheMetrics::register(&mut Registry::default()));
        tier.insert(Arc::clone(&small)).await;
        let large = Arc::new(features(b"b").to_unit().unwrap());
        assert!(large.bytes() > small.bytes());
        tier.insert(Arc::clone(&large)).await;
        assert!(tier.get(large.id(), MapsKind::Unit).await.is_none());
        assert!(tier.get(small.id(), MapsKind::Layers).await.is_some());
    }
}
