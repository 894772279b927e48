//! Connections to Redis, and reconnecting.
//!
//! Requests use open connections; they never open one. The first failure closes both, and so does the answer of a Redis
//! that is the wrong one, such as a primary that became a replica. A background task opens new ones, after longer and
//! longer pauses, and resolves the name of the host each time. It uses them once Redis has taken a read and a write. An
//! unreachable Redis therefore delays the requests that wait for it at that moment, by their timeout, and no later ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::Notify;

use super::command_error::{Cause, CommandError};
use super::outage_log::{OutageLog, STEADY};
use super::probe_key;
use crate::cache::metrics::{CacheMetrics, RedisErrorKind};
use crate::cache::redis_address::RedisAddress;

/// For a connection to open and Redis to answer on it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between attempts to connect: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// Life of the entry that is written to find out whether Redis takes writes; it is deleted at once.
const PROBE_LIFE_MS: u64 = 1000;

/// Opens the connections to Redis, and opens them again after a failure.
#[derive(Debug)]
pub(super) struct Connector {
    address: RedisAddress,
    link: Mutex<Link>,
    broken: Notify,
    metrics: CacheMetrics,
}

/// The open connections, and what became of the last ones.
#[derive(Debug, Default)]
struct Link {
    connections: Option<Connections>,
    /// Why the last connections were closed.
    closed: Option<Cause>,
    /// Codes of refused commands that were logged since the connections were opened.
    refusals: Vec<String>,
}

/// One connection for reads and one for writes, so that reads never wait for writes.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pub(super) reads: MultiplexedConnection,
    pub(super) writes: MultiplexedConnection,
    /// Number of the pair, counted from the start.
    generation: u64,
}

impl Connector {
    /// Starts to connect in the background; must be called within a runtime of tokio.
    pub(super) fn start(address: RedisAddress, metrics: CacheMetrics) -> RedisResult<Arc<Self>> {
        if address.is_tls() {
            // Fails if the process has chosen its cryptography before, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let client = Client::open(address.info().clone())?;
        metrics.set_redis_up(false);
        let connector = Arc::new(Self { address, link: Mutex::default(), broken: Notify::new(), metrics });
        tokio::spawn(Arc::clone(&connector).keep_connected(client));
        Ok(connector)
    }

    /// The open connections; `None` while Redis is not used.
    pub(super) fn connections(&self) -> Option<Connections> {
        self.link().connections.clone()
    }

    /// Records the result of a command: counts errors, and closes connections that cannot be used further.
    pub(super) fn record<T>(&self, connections: &Connections, result: Result<T, CommandError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(CommandError::Refused { kind, cause }) => {
                self.metrics.redis_error(kind);
                self.log_refusal(&cause);
                None
            }
            Err(CommandError::Unusable { kind, cause }) => {
                self.metrics.redis_error(kind);
                self.close(connections.generation, cause);
                None
            }
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self, connections: Connections) {
        let mut link = self.link();
        *link = Link { connections: Some(connections), ..Link::default() };
        self.metrics.set_redis_up(true);
    }

    fn close(&self, generation: u64, cause: Cause) {
        let mut link = self.link();
        // Several requests may fail on one connection, and a new one may be open by now.
        if link.connections.as_ref().is_some_and(|connections| connections.generation == generation) {
            *link = Link { closed: Some(cause), ..Link::default() };
            self.metrics.set_redis_up(false);
            self.broken.notify_one();
        }
    }

    /// Logs the first refusal of its kind. Values of other types are replaced, which is not worth a line.
    fn log_refusal(&self, cause: &Cause) {
        if cause.is_about_value() || !self.remember_refusal(&cause.code) {
            return;
        }
        let (redis, Cause { code, reason }, advice) = (&self.address, cause, cause.advice());
        tracing::warn!(%redis, code, reason, advice, "Redis refuses a command");
    }

    /// Returns whether a refusal with this code is the first of the connection.
    fn remember_refusal(&self, code: &str) -> bool {
        let mut link = self.link();
        let is_new = !link.refusals.iter().any(|known| known == code);
        if is_new {
            link.refusals.push(code.to_owned());
        }
        is_new
    }

    async fn keep_connected(self: Arc<Self>, client: Client) {
        let mut log = OutageLog::new(self.address.clone());
        // Failures in a row. A new connection does not reset them, nor do a few commands: it has to last.
        let mut failures = 0_u32;
        for generation in 0_u64.. {
            let cause = match self.connect(client.clone(), generation).await {
                Ok((connections, refusal)) => {
                    self.open(connections);
                    if let Some(refusal) = refusal {
                        self.log_refusal(&refusal);
                    }
                    // After an outage the connections have to last for a while first.
                    if !log.is_outage() {
                        log.end();
                    }
                    self.wait_until_closed(&mut log, &mut failures).await
                }
                Err((kind, cause)) => {
                    self.metrics.redis_error(kind);
                    cause
                }
            };
            log.begin(&cause);
            tokio::time::sleep(pause(failures).mul_f64(random_share())).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Returns why the connections were closed. Connections that last end an outage, and a row of failures.
    async fn wait_until_closed(&self, log: &mut OutageLog, failures: &mut u32) -> Cause {
        tokio::select! {
            () = self.broken.notified() => {}
            () = tokio::time::sleep(STEADY) => {
                *failures = 0;
                if log.is_outage() {
                    log.end();
                }
                self.broken.notified().await;
            }
        }
        self.link().closed.take().unwrap_or_else(|| Cause::without_answer("the connection was closed"))
    }

    /// Connects, and returns the refusal of a Redis that can only be read for now.
    async fn connect(
        &self,
        client: Client,
        generation: u64,
    ) -> Result<(Connections, Option<Cause>), (RedisErrorKind, Cause)> {
        let opening = async move { tokio::time::timeout(CONNECT_TIMEOUT, open_both(&client, generation)).await };
        let opened = if self.address.is_tls() {
            // The certificates of the system are read each time, and parsed for milliseconds.
            let runtime = tokio::runtime::Handle::current();
            let opened = tokio::task::spawn_blocking(move || runtime.block_on(opening)).await;
            opened.unwrap_or_else(|error| {
                let cause = Cause::without_answer(error.to_string());
                Ok(Err(CommandError::Unusable { kind: RedisErrorKind::Connection, cause }))
            })
        } else {
            opening.await
        };
        let opened = opened.map_err(|_| {
            let reason = format!("no answer within {} s", CONNECT_TIMEOUT.as_secs());
            (RedisErrorKind::Timeout, Cause::without_answer(reason))
        })?;
        opened.map_err(|error| match error {
            CommandError::Refused { kind, cause } | CommandError::Unusable { kind, cause } => (kind, cause),
        })
    }
}

/// Opens both connections to a Redis that takes a read and, unless it is full, a write.
async fn open_both(client: &Client, generation: u64) -> Result<(Connections, Option<Cause>), CommandError> {
    let (mut reads, mut writes) = tokio::try_join!(open(client), open(client))?;
    let key = probe_key();
    redis::cmd("GETRANGE").arg(&key).arg(0).arg(0).exec_async(&mut reads).await?;
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("").arg("PX").arg(PROBE_LIFE_MS);
    let refusal = match set.exec_async(&mut writes).await.map_err(CommandError::from) {
        Ok(()) => None,
        Err(CommandError::Refused { cause, .. }) if cause.is_about_writes() => Some(cause),
        Err(error) => return Err(error),
    };
    if refusal.is_none() {
        redis::cmd("UNLINK").arg(&key).exec_async(&mut writes).await?;
    }
    Ok((Connections { reads, writes, generation }, refusal))
}

/// Opens a connection and waits for Redis to answer on it.
async fn open(client: &Client) -> Result<MultiplexedConnection, CommandError> {
    // Each command has its own timeout.
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    match redis::cmd("PING").exec_async(&mut connection).await.map_err(CommandError::from) {
        Ok(()) => Ok(connection),
        // A Redis that cannot save refuses this, too, but not reads.
        Err(CommandError::Refused { cause, .. }) if cause.is_about_writes() => Ok(connection),
        Err(error) => Err(error),
    }
}

/// Pause before the next attempt to connect, after so many failures in a row.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures)).min(LONGEST_PAUSE)
}

/// A random number from 0.5 to 1, so that replicas that lost one Redis do not all come back at the same moments.
fn random_share() -> f64 {
    let mut random = [0; 1];
    // Without random numbers the pause is whole.
    let share = getrandom::fill(&mut random).map_or(1.0, |()| f64::from(random[0]) / 255.0);
    0.5 + share / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<_> = (0..4).map(|failures| pause(failures).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800]);
        assert_eq!(pause(5), LONGEST_PAUSE);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }
}
