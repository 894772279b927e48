//! The tier that replicas share.
//!
//! Redis may be slow, full, gone, or hold anything at all under our keys: none of that fails a request, or delays it
//! longer than the time that the settings allow for a lookup. It is read while a request waits and written when nobody
//! does.

mod address;
mod link;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use redis::RedisResult;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

pub use self::address::{RedisAddress, RedisAddressError};
use self::link::{Failure, Lines, Link};
use self::writer::Writer;
use super::entry::{self, FORMAT};
use super::features::{CachedFeatures, Unfit};
use super::key::FeatureId;
use crate::config::RedisSettings;
use crate::metrics::{CacheMetrics, CacheTier, RedisFault};

/// Entries that are read at a time: with entries of the largest size this bounds the memory that reading takes.
const MAX_READS: usize = 16;

/// Features in Redis.
#[derive(Debug)]
pub(super) struct RedisTier {
    link: Arc<Link>,
    writer: Writer,
    reads: Semaphore,
    settings: RedisSettings,
    metrics: CacheMetrics,
}

impl RedisTier {
    /// Begins to connect; must be called within a runtime of tokio. Whether Redis is there makes no difference.
    ///
    /// # Errors
    /// If the address is none that can be connected to.
    pub(super) fn start(settings: RedisSettings, metrics: CacheMetrics) -> RedisResult<Self> {
        let link = Link::start(settings.address.clone(), metrics.clone())?;
        let writer = Writer::start(Arc::clone(&link), &settings, metrics.clone());
        Ok(Self { link, writer, reads: Semaphore::new(MAX_READS), settings, metrics })
    }

    /// The features of this name, if they are there in time and pass `check`.
    pub(super) async fn get(
        &self,
        id: FeatureId,
        check: impl FnOnce(&CachedFeatures) -> Result<(), Unfit>,
    ) -> Option<CachedFeatures> {
        let lines = self.link.lines()?;
        let begun = Instant::now();
        let found = self.read(id, lines, begun + self.settings.timeout).await;
        self.metrics.redis_lookup(begun.elapsed());
        let found = found.and_then(|features| self.checked(id, features, check));
        match found {
            Some(_) => self.metrics.hit(CacheTier::redis),
            None => self.metrics.missed(CacheTier::redis),
        }
        found
    }

    /// Writes features behind the caller's back.
    pub(super) fn write(&self, features: Arc<CachedFeatures>) {
        self.writer.write(features);
    }

    async fn read(&self, id: FeatureId, lines: Lines, until: Instant) -> Option<CachedFeatures> {
        // Without one in time it is this process that is busy, not Redis.
        let permit = timeout_at(until.into(), self.reads.acquire()).await.ok()?;
        let fetched = match timeout_at(until.into(), self.fetch(id, &lines)).await {
            Ok(fetched) => fetched,
            Err(_) => Err(Failure::Broken(RedisFault::timeout)),
        };
        if let Err(Failure::Refused(RedisFault::refused)) = fetched {
            // Something that is no string lies under our key.
            self.writer.delete(id);
        }
        let bytes = self.link.ended(&lines, fetched)?;
        if bytes.is_empty() {
            return None;
        }
        if bytes.len() > self.settings.max_entry_bytes {
            return self.bad(id, "it is larger than an entry may be");
        }
        let decoded = tokio::task::spawn_blocking(move || entry::decode(&bytes, id));
        let decoded = timeout_at(until.into(), decoded).await.ok()?.ok()?;
        drop(permit);
        decoded.map_or_else(|error| self.bad(id, &error.to_string()), Some)
    }

    /// The bytes under the name; none if there are none. One byte more than an entry may have, if there are more.
    async fn fetch(&self, id: FeatureId, lines: &Lines) -> Result<Vec<u8>, Failure> {
        let mut get = redis::cmd("GETRANGE");
        get.arg(name_of(id)).arg(0).arg(self.settings.max_entry_bytes);
        Ok(get.query_async(&mut lines.reads.clone()).await?)
    }

    fn checked(
        &self,
        id: FeatureId,
        features: CachedFeatures,
        check: impl FnOnce(&CachedFeatures) -> Result<(), Unfit>,
    ) -> Option<CachedFeatures> {
        match check(&features) {
            Ok(()) => Some(features),
            // Another replica may serve the model, or will again.
            Err(Unfit::Model) => None,
            Err(Unfit::Shape) => self.bad(id, "its shapes are not those of the model's layers"),
        }
    }

    fn bad<T>(&self, id: FeatureId, reason: &str) -> Option<T> {
        tracing::warn!(%id, reason, "an entry in Redis is no good and is deleted");
        self.metrics.redis_failed(RedisFault::bad_entry);
        self.writer.delete(id);
        None
    }
}

/// Holds the format's version: processes that write another one do not see these entries.
fn name_of(id: FeatureId) -> String {
    format!("densecl:features:{FORMAT}:{id}")
}
