//! What is written to Redis, after the answer that it came from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::link::{Failure, Link};
use super::{CachedFeatures, name_of};
use crate::cache::entry;
use crate::cache::key::FeatureId;
use crate::config::RedisSettings;
use crate::metrics::{CacheMetrics, DroppedWrite, RedisFault};

/// What may wait to be written. With entries of the largest size this bounds the memory that a slow Redis can hold.
const QUEUE: usize = 16;
/// For one write: nobody waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);
/// For a Redis that is full, or read-only, or has no such command.
const PAUSE_WHEN_REFUSED: Duration = Duration::from_secs(1);

/// The way to the task that writes, which ends with the last clone.
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
    /// Must be called within a runtime of tokio.
    pub(super) fn start(link: Arc<Link>, settings: &RedisSettings, metrics: CacheMetrics) -> Self {
        let (jobs, received) = mpsc::channel(QUEUE);
        let RedisSettings { time_to_live, max_entry_bytes, .. } = *settings;
        let task = Task { link, time_to_live, max_entry_bytes, metrics: metrics.clone(), refused: None };
        tokio::spawn(task.run(received));
        Self { jobs, metrics }
    }

    /// Writes features, some time; or not, if too many others wait.
    pub(super) fn write(&self, features: Arc<CachedFeatures>) {
        if self.jobs.try_send(Job::Write(features)).is_err() {
            self.metrics.write_dropped(DroppedWrite::queue_full);
        }
    }

    /// Deletes an entry that is no good. One that stays is found again.
    pub(super) fn delete(&self, id: FeatureId) {
        // A full queue is not the place for it.
        let _ = self.jobs.try_send(Job::Delete(id));
    }
}

struct Task {
    link: Arc<Link>,
    time_to_live: Duration,
    max_entry_bytes: usize,
    metrics: CacheMetrics,
    /// When Redis last refused a write.
    refused: Option<Instant>,
}

impl Task {
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
                    delete.arg(name_of(id));
                    // It is found again, if it matters.
                    let _ = self.send(&delete).await;
                }
            }
        }
    }

    async fn write(&mut self, features: Arc<CachedFeatures>) -> Result<(), DroppedWrite> {
        let pausing = self.refused.is_some_and(|refused| refused.elapsed() < PAUSE_WHEN_REFUSED);
        if pausing || self.link.lines().is_none() {
            return Err(DroppedWrite::unavailable);
        }
        if features.bytes() > self.max_entry_bytes {
            return Err(DroppedWrite::too_large);
        }
        let id = features.id();
        let encoded = tokio::task::spawn_blocking(move || entry::encode(&features)).await;
        let bytes = encoded.ok().flatten().ok_or(DroppedWrite::failed)?;
        let mut set = redis::cmd("SET");
        let milliseconds = u64::try_from(self.time_to_live.as_millis()).unwrap_or(u64::MAX).max(1);
        set.arg(name_of(id)).arg(bytes).arg("PX").arg(milliseconds);
        self.send(&set).await
    }

    async fn send(&mut self, command: &redis::Cmd) -> Result<(), DroppedWrite> {
        let mut lines = self.link.lines().ok_or(DroppedWrite::unavailable)?;
        let sent = tokio::time::timeout(WRITE_TIMEOUT, command.exec_async(&mut lines.writes)).await;
        let sent = match sent {
            Ok(result) => result.map_err(Failure::from),
            Err(_) => Err(Failure::Broken(RedisFault::timeout)),
        };
        self.refused = matches!(sent, Err(Failure::Refused(_))).then(Instant::now);
        self.link.ended(&lines, sent).ok_or(DroppedWrite::failed)
    }
}
