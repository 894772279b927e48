//! Connections to Redis, and reconnecting.
//!
//! Requests use open connections; they never open one. The first failure closes both, and a background task opens new
//! ones, after longer and longer pauses. An unreachable Redis therefore delays the requests that wait for it at that
//! moment, by their timeout, and no later ones.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisError, RedisResult};
use tokio::sync::Notify;

use crate::cache::metrics::{CacheMetrics, RedisErrorKind};
use crate::cache::redis_address::RedisAddress;

/// For a connection to open and Redis to answer on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Opens the connections to Redis, and opens them again after a failure.
#[derive(Debug)]
pub(super) struct Connector {
    address: RedisAddress,
    connections: Mutex<Option<Connections>>,
    broken: Notify,
    /// Failures in a row. Only a successful command resets them, not a new connection.
    failures: AtomicU32,
    metrics: CacheMetrics,
}

/// One connection for reads and one for writes, so that reads never wait for writes.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) reads: MultiplexedConnection,
    pub(super) writes: MultiplexedConnection,
    /// Number of the pair, counted from the start.
    generation: u64,
}

/// A command has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandError {
    /// Redis answered with an error; the connection can be used further.
    Refused(RedisErrorKind),
    /// The connection is broken.
    Broken(RedisErrorKind),
}

impl From<RedisError> for CommandError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("OOM") => Self::Refused(RedisErrorKind::Full),
            Some(_) => Self::Refused(RedisErrorKind::Refused),
            None if error.is_timeout() => Self::Broken(RedisErrorKind::Timeout),
            None => Self::Broken(RedisErrorKind::Connection),
        }
    }
}

impl Connector {
    /// Starts to connect in the background; must be called within a runtime of tokio.
    pub(super) fn start(address: RedisAddress, metrics: CacheMetrics) -> RedisResult<Arc<Self>> {
        let client = Client::open(address.info().clone())?;
        metrics.set_redis_up(false);
        let connector = Arc::new(Self {
            address,
            connections: Mutex::default(),
            broken: Notify::new(),
            failures: AtomicU32::new(0),
            metrics,
        });
        tokio::spawn(Arc::clone(&connector).keep_connected(client));
        Ok(connector)
    }

    /// The open connections; `None` while Redis is not used.
    pub(super) fn connections(&self) -> Option<Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the result of a command: counts errors, and closes broken connections.
    pub(super) fn record<T>(&self, connections: &Connections, result: Result<T, CommandError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.failures.store(0, Ordering::Relaxed);
                Some(value)
            }
            Err(CommandError::Refused(kind)) => {
                self.metrics.redis_error(kind);
                None
            }
            Err(CommandError::Broken(kind)) => {
                self.metrics.redis_error(kind);
                self.close(connections.generation);
                None
            }
        }
    }

    fn close(&self, generation: u64) {
        let mut open = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        // Several requests may fail on one connection, and a new one may be open by now.
        if open.as_ref().is_some_and(|connections| connections.generation == generation) {
            *open = None;
            self.metrics.set_redis_up(false);
            self.broken.notify_one();
        }
    }

    async fn keep_connected(self: Arc<Self>, client: Client) {
        let mut logged = false;
        for generation in 0_u64.. {
            match connect(&client, generation).await {
                Ok(connections) => {
                    tracing::info!(redis = %self.address, "features are shared through Redis");
                    logged = false;
                    *self.connections.lock().unwrap_or_else(PoisonError::into_inner) = Some(connections);
                    self.metrics.set_redis_up(true);
                    self.broken.notified().await;
                    tracing::warn!(redis = %self.address, "Redis does not answer; features are cached in this process only");
                }
                Err(ConnectError { kind, reason }) => {
                    self.metrics.redis_error(kind);
                    if !logged {
                        tracing::warn!(redis = %self.address, reason, "Redis cannot be used; features are cached in this process only");
                        logged = true;
                    }
                }
            }
            let failures = self.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause(failures)).await;
        }
    }
}

/// A failed attempt to connect; the reason does not contain the address.
struct ConnectError {
    kind: RedisErrorKind,
    reason: String,
}

async fn connect(client: &Client, generation: u64) -> Result<Connections, ConnectError> {
    let opening = async {
        let (reads, writes) = tokio::try_join!(open(client), open(client))?;
        RedisResult::Ok(Connections { reads, writes, generation })
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
        Ok(Ok(connections)) => Ok(connections),
        Ok(Err(error)) => {
            let reason = error.to_string();
            let (CommandError::Refused(kind) | CommandError::Broken(kind)) = CommandError::from(error);
            Err(ConnectError { kind, reason })
        }
        Err(_) => {
            let reason = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            Err(ConnectError { kind: RedisErrorKind::Timeout, reason })
        }
    }
}

/// Opens a connection and waits for Redis to answer on it.
async fn open(client: &Client) -> RedisResult<MultiplexedConnection> {
    // Each command has its own timeout.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    redis::cmd("PING").exec_async(&mut connection).await?;
    Ok(connection)
}

/// Pause before the next attempt to connect, after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<_> = (0..4).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        assert_eq!(pause(7), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
