//! Rate limits of client addresses: a token bucket for each, in bounded memory.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::config::ClientRates;

/// Addresses with a bucket of their own, about 5 MB. All others share one bucket.
const MAX_CLIENTS: usize = 1 << 16;

/// The buckets of all clients.
pub(crate) struct RateLimits<C: Clock = MonotonicClock> {
    limiter: RateLimiter<IpAddr, Buckets, C, NoOpMiddleware<C::Instant>>,
    clock: C,
    max_clients: usize,
}

impl RateLimits {
    /// Creates the limits of the settings; `None` if there are none.
    pub(crate) fn new(rates: &ClientRates) -> Option<Self> {
        Self::with_clock(rates, MonotonicClock, MAX_CLIENTS)
    }
}

impl<C: Clock + Clone> RateLimits<C> {
    fn with_clock(rates: &ClientRates, clock: C, max_clients: usize) -> Option<Self> {
        let rate = rates.per_address?;
        let quota = Quota::with_period(rate.interval())?.allow_burst(rates.burst.unwrap_or(rate.per_second()));
        let limiter = RateLimiter::new(quota, Buckets::new(max_clients), clock.clone());
        Some(Self { limiter, clock, max_clients })
    }

    /// Takes one token from the client's bucket.
    ///
    /// # Errors
    /// The time until there is one.
    pub(crate) fn check(&self, client: IpAddr) -> Result<(), Duration> {
        if self.limiter.len() >= self.max_clients {
            // A full bucket is the same as a new one, so it can be dropped.
            self.limiter.retain_recent();
        }
        let checked = self.limiter.check_key(&bucket_address(client));
        checked.map_err(|refused| refused.wait_time_from(self.clock.now()))
    }
}

/// The address whose bucket a client uses: its own in IPv4, its /64 network in IPv6, as a provider usually
/// assigns at least that to one customer.
fn bucket_address(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// States of the buckets of a bounded number of clients.
struct Buckets {
    max_clients: usize,
    states: Mutex<States>,
}

#[derive(Default)]
struct States {
    clients: HashMap<IpAddr, Nanos>,
    /// Bucket of all clients beyond `max_clients`.
    others: Option<Nanos>,
}

impl Buckets {
    fn new(max_clients: usize) -> Self {
        Self { max_clients, states: Mutex::default() }
    }

    fn states(&self) -> MutexGuard<'_, States> {
        // Nothing panics while it holds the lock.
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateStore for Buckets {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, client: &IpAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.states();
        let known = states.clients.get(client).copied();
        if known.is_none() && states.clients.len() >= self.max_clients {
            let (outcome, state) = decide(states.others)?;
            states.others = Some(state);
            return Ok(outcome);
        }
        let (outcome, state) = decide(known)?;
        states.clients.insert(*client, state);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Buckets {
    fn retain_recent(&self, drop_below: Nanos) {
        self.states().clients.retain(|_, state| *state > drop_below);
    }

    fn shrink_to_fit(&self) {
        self.states().clients.shrink_to_fit();
    }

    fn len(&self) -> usize {
        self.states().clients.len()
    }

    fn is_empty(&self) -> bool {
        self.states().clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limits(rate: &str, max_clients: usize) -> (RateLimits<FakeRelativeClock>, FakeRelativeClock) {
        let rates = ClientRates { per_address: Some(rate.parse().unwrap()), ..ClientRates::default() };
        let clock = FakeRelativeClock::default();
        // A bucket that was last used at time zero would look unused.
        clock.advance(Duration::from_secs(1));
        (RateLimits::with_clock(&rates, clock.clone(), max_clients).unwrap(), clock)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn without_a_rate_there_is_no_limit() {
        assert!(RateLimits::new(&ClientRates::default()).is_none());
    }

    #[test]
    fn each_client_is_limited_to_its_rate() {
        let (limits, clock) = limits("4/s", 9);
        let (one, other) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..4 {
            assert_eq!(limits.check(one), Ok(()));
        }
        assert_eq!(limits.check(one), Err(Duration::from_millis(250)));
        assert_eq!(limits.check(other), Ok(()), "clients have separate buckets");
        clock.advance(Duration::from_millis(250));
        assert_eq!(limits.check(one), Ok(()));
        assert!(limits.check(one).is_err());
    }

    #[test]
    fn addresses_of_one_ipv6_network_share_a_bucket() {
        let (limits, _clock) = limits("1/s", 9);
        assert_eq!(limits.check(address("2001:db8::1")), Ok(()));
        assert!(limits.check(address("2001:db8::2")).is_err());
        assert_eq!(limits.check(address("2001:db8:0:1::2")), Ok(()));
    }

    #[test]
    fn addresses_beyond_the_limit_share_one_bucket() {
        let (limits, clock) = limits("2/s", 2);
        for known in ["192.0.2.1", "192.0.2.2"] {
            assert_eq!(limits.check(address(known)), Ok(()));
        }
        let passed = (0..100).filter(|host| limits.check(IpAddr::from([198, 51, 100, *host])).is_ok()).count();
        assert_eq!(passed, 2);
        assert_eq!(limits.check(address("192.0.2.1")), Ok(()), "its second token");
        clock.advance(Duration::from_secs(5));
        assert_eq!(limits.check(address("198.51.100.1")), Ok(()));
        assert_eq!(limits.limiter.len(), 1, "full buckets are dropped");
    }
}
