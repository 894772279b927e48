//! Rate limit of one key.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::rate::Rate;

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>;

/// Rate of a key, as the file of keys gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateSetting {
    pub(super) rate: Rate,
    /// Requests at once above the steady rate; a second's worth if `None`.
    pub(super) burst: Option<NonZeroU32>,
}

/// A token bucket; clones share it.
#[derive(Clone)]
pub(super) struct KeyRate {
    pub(super) setting: RateSetting,
    limiter: Arc<Limiter>,
}

impl KeyRate {
    /// Makes a full bucket.
    pub(super) fn new(setting: RateSetting) -> Self {
        let RateSetting { rate, burst } = setting;
        let quota = Quota::with_period(rate.interval()).expect("a rate's interval is at least a microsecond");
        let quota = quota.allow_burst(burst.unwrap_or(rate.per_second()));
        Self { setting, limiter: Arc::new(RateLimiter::direct_with_clock(quota, MonotonicClock)) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// The time until the next token, if there is none now.
    pub(super) fn take_token(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refused| refused.wait_time_from(MonotonicClock.now()))
    }
}

impl fmt::Debug for KeyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setting.fmt(f)
    }
}
