//! Log lines about a Redis that comes and goes: each outage once, with its cause, and its end.

use std::time::Duration;

use super::command_error::Cause;
use crate::cache::redis_address::RedisAddress;

/// Time for which Redis has to be used before an outage counts as ended. A Redis that refuses only some commands, such as
/// a node of a cluster, can be connected to all the time.
pub(super) const STEADY: Duration = Duration::from_secs(5);

/// Says once that Redis cannot be used, and once that it can.
#[derive(Debug)]
pub(super) struct OutageLog {
    address: RedisAddress,
    /// Code of the cause that was logged last, since Redis cannot be used.
    logged: Option<String>,
}

impl OutageLog {
    pub(super) fn new(address: RedisAddress) -> Self {
        Self { address, logged: None }
    }

    /// True between [`Self::begin`] and [`Self::end`].
    pub(super) fn is_outage(&self) -> bool {
        self.logged.is_some()
    }

    /// Logs that Redis cannot be used, unless that is known. A cause that changes is logged at a lower level.
    pub(super) fn begin(&mut self, cause: &Cause) {
        let Cause { code, reason } = cause;
        let (redis, advice) = (&self.address, cause.advice());
        match &self.logged {
            None => {
                tracing::warn!(%redis, code, reason, advice, "Redis cannot be used; features are cached in this process only");
            }
            Some(logged) if logged != code => {
                tracing::info!(%redis, code, reason, advice, "Redis still cannot be used");
            }
            Some(_) => return,
        }
        self.logged = Some(code.clone());
    }

    /// Logs that Redis is used.
    pub(super) fn end(&mut self) {
        self.logged = None;
        tracing::info!(redis = %self.address, "features are shared through Redis");
    }
}
