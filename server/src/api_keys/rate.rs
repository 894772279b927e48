//! How often one key may be used.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::config::Rate;

type Limiter = RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Instant>>;

/// What a file says of a key's rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateSetting {
    pub(super) rate: Rate,
    /// Requests at once above the steady rate; a second's worth if `None`.
    pub(super) burst: Option<NonZeroU32>,
}

/// A token bucket; cloning shares it.
#[derive(Clone)]
pub(super) struct KeyRate {
    pub(super) setting: RateSetting,
    limiter: Arc<Limiter>,
}

impl KeyRate {
    /// A full bucket.
    pub(super) fn new(setting: RateSetting) -> Self {
        let RateSetting { rate, burst } = setting;
        let quota = Quota::with_period(rate.interval()).expect("a rate's interval is at least a microsecond");
        let quota = quota.allow_burst(burst.unwrap_or(rate.per_second()));
        Self { setting, limiter: Arc::new(RateLimiter::direct_with_clock(quota, MonotonicClock)) }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// With the time until there is one.
    pub(super) fn check(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|refused| refused.wait_time_from(MonotonicClock.now()))
    }
}

impl fmt::Debug for KeyRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setting.fmt(f)
    }
}
