//! The tier in this process: bounded by the bytes that its entries take, the longest unused leave first.

use std::sync::Arc;

use moka::future::Cache;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;

use super::features::{CachedFeatures, Form};
use super::key::FeatureId;
use crate::metrics::CacheMetrics;

/// Features by name and form. Each form is an entry of its own, that leaves when nobody has used it for long.
#[derive(Clone, Debug)]
pub(super) struct MemoryTier {
    entries: Cache<(FeatureId, Form), Arc<CachedFeatures>>,
    metrics: CacheMetrics,
}

impl MemoryTier {
    pub(super) fn new(max_bytes: u64, metrics: CacheMetrics) -> Self {
        metrics.limit(max_bytes);
        let evicted = metrics.clone();
        let entries = Cache::builder()
            .max_capacity(max_bytes)
            // Not by how often: a name that was just handed out has not been asked for yet, and will be.
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

    pub(super) async fn get(&self, id: FeatureId, form: Form) -> Option<Arc<CachedFeatures>> {
        self.entries.get(&(id, form)).await
    }

    pub(super) async fn insert(&self, features: Arc<CachedFeatures>) {
        self.entries.insert((features.id(), features.form()), features).await;
        // At once, not with the next sixty: entries are large, and the bound is one on memory.
        self.entries.run_pending_tasks().await;
        self.metrics.holds(self.entries.entry_count(), self.entries.weighted_size());
    }
}

#[cfg(test)]
mod tests {
    use super::super::features::tests::features;
    use super::*;
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn the_longest_unused_leave_and_the_bound_holds_after_every_insert() {
        let metrics = Metrics::new();
        let [a, b, c] = [b"a", b"b", b"c"].map(|file| Arc::new(features(file)));
        let tier = MemoryTier::new(2 * a.bytes() as u64, metrics.cache.clone());
        let get = async |features: &CachedFeatures| tier.get(features.id(), Form::Layers).await.is_some();
        for features in [&a, &b] {
            tier.insert(Arc::clone(features)).await;
        }
        assert!(get(&a).await && get(&b).await && get(&a).await);
        tier.insert(Arc::clone(&c)).await;
        assert_eq!((get(&a).await, get(&b).await, get(&c).await), (true, false, true));
        assert_eq!(tier.entries.weighted_size(), (a.bytes() + c.bytes()) as u64);
        let text = metrics.text().unwrap();
        for line in ["densecl_cache_evictions_total 1", "densecl_cache_entries 2"] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }

    #[tokio::test]
    async fn what_is_larger_than_the_cache_is_not_kept_and_drives_nothing_out() {
        let small = Arc::new(features(b"a"));
        let tier = MemoryTier::new(small.bytes() as u64, Metrics::new().cache);
        tier.insert(Arc::clone(&small)).await;
        let large = Arc::new(features(b"b").to_unit().unwrap());
        assert!(large.bytes() > small.bytes());
        tier.insert(Arc::clone(&large)).await;
        assert!(tier.get(large.id(), Form::Unit).await.is_none());
        assert!(tier.get(small.id(), Form::Layers).await.is_some());
    }
}
