//! Redis tier, which replicas share.
//!
//! A Redis that is slow, full or unreachable, or that holds damaged entries, never fails a request, and delays it by at
//! most the timeout of a lookup. Reads happen while a request waits, writes in the background.

mod command_error;
mod connector;
mod outage_log;
mod writer;

use std::sync::Arc;
use std::time::Instant;

use redis::RedisResult;
use tokio::sync::Semaphore;
use tokio::time::timeout_at;

use self::command_error::{Cause, CommandError};
use self::connector::{Connections, Connector};
use self::writer::Writer;
use super::entry::{self, FORMAT};
use super::features::{CachedFeatures, FeatureMismatch};
use super::key::FeatureId;
use super::metrics::{CacheMetrics, CacheTier, RedisErrorKind};
use super::settings::RedisSettings;

/// Concurrent reads; together with the largest size of an entry this bounds the memory of reads.
const MAX_READS: usize = 16;

/// Redis tier of the cache.
#[derive(Debug)]
pub(super) struct RedisTier {
    connector: Arc<Connector>,
    writer: Writer,
    reads: Semaphore,
    settings: RedisSettings,
    metrics: CacheMetrics,
}

impl RedisTier {
    /// Starts to connect in the background; must be called within a runtime of tokio. Succeeds without Redis, too.
    ///
    /// # Errors
    /// If no client can be made for the address.
    pub(super) fn start(settings: RedisSettings, metrics: CacheMetrics) -> RedisResult<Self> {
        let connector = Connector::start(settings.address.clone(), metrics.clone())?;
        let writer = Writer::start(Arc::clone(&connector), &settings, metrics.clone());
        Ok(Self { connector, writer, reads: Semaphore::new(MAX_READS), settings, metrics })
    }

    /// Reads the features of this id; `None` if they are not found in time or do not pass `check`.
    pub(super) async fn get(
        &self,
        id: FeatureId,
        check: impl FnOnce(&CachedFeatures) -> Result<(), FeatureMismatch>,
    ) -> Option<CachedFeatures> {
        let connections = self.connector.connections()?;
        let started = Instant::now();
        let found = self.read(id, connections, started + self.settings.timeout).await;
        self.metrics.redis_lookup(started.elapsed());
        let found = found.and_then(|features| self.accept(id, features, check));
        match found {
            Some(_) => self.metrics.hit(CacheTier::Redis),
            None => self.metrics.miss(CacheTier::Redis),
        }
        found
    }

    /// Writes features in the background.
    pub(super) fn write(&self, features: Arc<CachedFeatures>) {
        self.writer.write(features);
    }

    async fn read(&self, id: FeatureId, connections: Connections, deadline: Instant) -> Option<CachedFeatures> {
        // No permit in time: this process is busy, which is not an error of Redis.
        let permit = timeout_at(deadline.into(), self.reads.acquire()).await.ok()?;
        let asked = Instant::now();
        let fetched = match timeout_at(deadline.into(), self.fetch(id, &connections)).await {
            Ok(fetched) => fetched,
            // Most of the time went by before Redis was asked, which says nothing of Redis.
            Err(_) if asked.elapsed() < self.settings.timeout / 2 => return None,
            Err(_) => Err(CommandError::Unusable {
                kind: RedisErrorKind::Timeout,
                cause: Cause::without_answer("no answer to a lookup in time"),
            }),
        };
        if let Err(CommandError::Refused { cause, .. }) = &fetched
            && cause.is_about_value()
        {
            self.writer.delete(id);
        }
        let bytes = self.connector.record(&connections, fetched)?;
        if bytes.is_empty() {
            return None;
        }
        if bytes.len() > self.settings.max_entry_bytes {
            return self.reject(id, "it is larger than an entry may be");
        }
        let decoded = tokio::task::spawn_blocking(move || entry::decode(&bytes, id));
        let decoded = timeout_at(deadline.into(), decoded).await.ok()?.ok()?;
        drop(permit);
        decoded.map_or_else(|error| self.reject(id, &error.to_string()), Some)
    }

    /// Reads the entry's bytes: none if there is no entry, and at most one byte more than an entry may have.
    async fn fetch(&self, id: FeatureId, connections: &Connections) -> Result<Vec<u8>, CommandError> {
        let mut get = redis::cmd("GETRANGE");
        get.arg(redis_key(id)).arg(0).arg(self.settings.max_entry_bytes);
        Ok(get.query_async(&mut connections.reads.clone()).await?)
    }

    fn accept(
        &self,
        id: FeatureId,
        features: CachedFeatures,
        check: impl FnOnce(&CachedFeatures) -> Result<(), FeatureMismatch>,
    ) -> Option<CachedFeatures> {
        match check(&features) {
            Ok(()) => Some(features),
            // Another replica may serve the model.
            Err(FeatureMismatch::Model) => None,
            Err(FeatureMismatch::Shape) => self.reject(id, "its shapes are not those of the model's layers"),
        }
    }

    fn reject<T>(&self, id: FeatureId, reason: &str) -> Option<T> {
        tracing::warn!(%id, reason, "deleting a bad entry of Redis");
        self.metrics.redis_error(RedisErrorKind::BadEntry);
        self.writer.delete(id);
        None
    }
}

/// Key of the entry that is written and deleted when a connection is opened.
fn probe_key() -> String {
    format!("densecl:features:{FORMAT}:probe")
}

/// Key of an entry. It contains the format, so processes with another format do not see the entry.
fn redis_key(id: FeatureId) -> String {
    format!("densecl:features:{FORMAT}:{id}")
}
