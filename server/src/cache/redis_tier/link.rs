//! The connections to Redis, and when it is left alone.
//!
//! Requests use connections that stand; they never make one. The first failure of any of them takes both down, and only
//! a task of the link's own tries to get them back, each time after a longer pause: a Redis that is gone costs the
//! requests that happen to wait for it their timeout once, and nobody anything after that.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::Notify;

use super::RedisAddress;
use crate::metrics::{CacheMetrics, RedisFault};

/// For a connection to stand and Redis to answer on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What stands between this process and Redis.
#[derive(Debug)]
pub(super) struct Link {
    address: RedisAddress,
    lines: Mutex<Option<Lines>>,
    broken: Notify,
    /// In a row; a command that succeeds ends the row, a connection that merely stands does not.
    failures: AtomicU32,
    metrics: CacheMetrics,
}

/// Two connections, so that what is written never stands before what is read.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    pub(super) reads: MultiplexedConnection,
    pub(super) writes: MultiplexedConnection,
    /// Which pair since the start.
    number: u64,
}

/// A command has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Redis is there, and does not do this.
    Refused(RedisFault),
    /// Nothing can be expected of this connection any more.
    Broken(RedisFault),
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("OOM") => Self::Refused(RedisFault::full),
            Some(_) => Self::Refused(RedisFault::refused),
            None if error.is_timeout() => Self::Broken(RedisFault::timeout),
            None => Self::Broken(RedisFault::connection),
        }
    }
}

impl Link {
    /// Begins to connect; must be called within a runtime of tokio.
    pub(super) fn start(address: RedisAddress, metrics: CacheMetrics) -> RedisResult<Arc<Self>> {
        let client = Client::open(address.info().clone())?;
        metrics.redis_up(false);
        let link = Arc::new(Self {
            address,
            lines: Mutex::default(),
            broken: Notify::new(),
            failures: AtomicU32::new(0),
            metrics,
        });
        tokio::spawn(Arc::clone(&link).keep_up(client));
        Ok(link)
    }

    /// The connections, unless Redis is left alone.
    pub(super) fn lines(&self) -> Option<Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes how a command on `lines` ended.
    pub(super) fn ended<T>(&self, lines: &Lines, result: Result<T, Failure>) -> Option<T> {
        match result {
            Ok(value) => {
                self.failures.store(0, Ordering::Relaxed);
                Some(value)
            }
            Err(Failure::Refused(fault)) => {
                self.metrics.redis_failed(fault);
                None
            }
            Err(Failure::Broken(fault)) => {
                self.metrics.redis_failed(fault);
                self.take_down(lines.number);
                None
            }
        }
    }

    fn take_down(&self, number: u64) {
        let mut standing = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // Many may have waited on the same connection, and a new one may stand by now.
        if standing.as_ref().is_some_and(|lines| lines.number == number) {
            *standing = None;
            self.metrics.redis_up(false);
            self.broken.notify_one();
        }
    }

    async fn keep_up(self: Arc<Self>, client: Client) {
        let mut told = false;
        for number in 0_u64.. {
            match connect(&client, number).await {
                Ok(lines) => {
                    tracing::info!(redis = %self.address, "features are shared through Redis");
                    told = false;
                    *self.lines.lock().unwrap_or_else(PoisonError::into_inner) = Some(lines);
                    self.metrics.redis_up(true);
                    self.broken.notified().await;
                    tracing::warn!(redis = %self.address, "Redis does not answer; features are kept here alone");
                }
                Err(failed) => {
                    self.metrics.redis_failed(failed.fault);
                    if !told {
                        let Failed { reason, .. } = failed;
                        tracing::warn!(redis = %self.address, reason, "Redis cannot be used; features are kept here alone");
                        told = true;
                    }
                }
            }
            let failures = self.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(failures)).await;
        }
    }
}

/// Why there is no connection; the reason holds nothing of the address.
struct Failed {
    fault: RedisFault,
    reason: String,
}

async fn connect(client: &Client, number: u64) -> Result<Lines, Failed> {
    let standing = async {
        let (reads, writes) = tokio::try_join!(line(client), line(client))?;
        RedisResult::Ok(Lines { reads, writes, number })
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, standing).await {
        Ok(Ok(lines)) => Ok(lines),
        Ok(Err(error)) => {
            let (Failure::Refused(fault) | Failure::Broken(fault)) = Failure::from(error.clone());
            Err(Failed { fault, reason: error.to_string() })
        }
        Err(_) => {
            let reason = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            Err(Failed { fault: RedisFault::timeout, reason })
        }
    }
}

/// A connection on which Redis has answered.
async fn line(client: &Client) -> RedisResult<MultiplexedConnection> {
    // Who uses it says how long an answer may take.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut line = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").exec_async(&mut line).await?;
    Ok(line)
}

/// How long Redis is left alone after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_end_growing() {
        let pauses: Vec<_> = (0..4).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        assert_eq!(pause(7), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
