//! Background writes to Redis.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::command_error::{Cause, CommandError};
use super::connector::Connector;
use super::{CachedFeatures, redis_key};
use crate::cache::entry;
use crate::cache::key::FeatureId;
use crate::cache::metrics::{CacheMetrics, RedisErrorKind, WriteDropReason};
use crate::cache::settings::RedisSettings;

/// Jobs that may wait; together with the largest size of an entry this bounds the memory that a slow Redis can hold.
const MAX_QUEUED_JOBS: usize = 16;
/// For one write. It may be long, because no request waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time without writes after a refused one: Redis is full, read-only, or has no such command.
const PAUSE_WHEN_REFUSED: Duration = Duration::from_secs(1);

/// Sends jobs to the task that writes; the task ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    metrics: CacheMetrics,
}

#[derive(Debug)]
enum Job {
    Write(Arc<CachedFeatures>),
    Delete(FeatureId),
}

impl Writer {
    /// Starts the task; must be called within a runtime of tokio.
    pub(super) fn start(connector: Arc<Connector>, settings: &RedisSettings, metrics: CacheMetrics) -> Self {
        let (jobs, received) = mpsc::channel(MAX_QUEUED_JOBS);
        let RedisSettings { time_to_live, max_entry_bytes, .. } = *settings;
        let task = WriterTask { connector, time_to_live, max_entry_bytes, metrics: metrics.clone(), refused: None };
        tokio::spawn(task.run(received));
        Self { jobs, metrics }
    }

    /// Queues a write; drops it if the queue is full.
    pub(super) fn write(&self, features: Arc<CachedFeatures>) {
        if self.jobs.try_send(Job::Write(features)).is_err() {
            self.metrics.write_dropped(WriteDropReason::QueueFull);
        }
    }

    /// Queues the deletion of a bad entry; drops it if the queue is full.
    pub(super) fn delete(&self, id: FeatureId) {
        // An entry that stays is found and deleted by a later lookup.
        let _ = self.jobs.try_send(Job::Delete(id));
    }
}

struct WriterTask {
    connector: Arc<Connector>,
    time_to_live: Duration,
    max_entry_bytes: usize,
    metrics: CacheMetrics,
    /// When Redis last refused a write.
    refused: Option<Instant>,
}

impl WriterTask {
    async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            match job {
                Job::Write(features) => {
                    if let Err(reason) = self.write(features).await {
                        self.metrics.write_dropped(reason);
                    }
                }
                Job::Delete(id) => {
                    let mut delete = redis::cmd("UNLINK");
                    delete.arg(redis_key(id));
                    // An entry that stays is found and deleted by a later lookup.
                    let _ = self.send(&delete).await;
                }
            }
        }
    }

    async fn write(&mut self, features: Arc<CachedFeatures>) -> Result<(), WriteDropReason> {
        let pausing = self.refused.is_some_and(|refused| refused.elapsed() < PAUSE_WHEN_REFUSED);
        if pausing || self.connector.connections().is_none() {
            return Err(WriteDropReason::Unavailable);
        }
        if features.bytes() > self.max_entry_bytes {
            return Err(WriteDropReason::TooLarge);
        }
        let id = features.id();
        let encoded = tokio::task::spawn_blocking(move || entry::encode(&features)).await;
        let bytes = encoded.ok().flatten().ok_or(WriteDropReason::Failed)?;
        let mut set = redis::cmd("SET");
        let milliseconds = u64::try_from(self.time_to_live.as_millis()).unwrap_or(u64::MAX).max(1);
        set.arg(redis_key(id)).arg(bytes).arg("PX").arg(milliseconds);
        self.send(&set).await
    }

    async fn send(&mut self, command: &redis::Cmd) -> Result<(), WriteDropReason> {
        let mut connections = self.connector.connections().ok_or(WriteDropReason::Unavailable)?;
        let sent = tokio::time::timeout(WRITE_TIMEOUT, command.exec_async(&mut connections.writes)).await;
        let sent = match sent {
            Ok(result) => result.map_err(CommandError::from),
            Err(_) => Err(CommandError::Unusable {
                kind: RedisErrorKind::Timeout,
                cause: Cause::without_answer("no answer to a write in time"),
            }),
        };
        self.refused = matches!(sent, Err(CommandError::Refused { .. })).then(Instant::now);
        self.connector.record(&connections, sent).ok_or(WriteDropReason::Failed)
    }
}
