//! What happens on one connection, and since when: the rules by which it has become too slow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ConnectionLimits;

/// A request may be on its way while the server closes its door: a connection without one is left
/// open for as long as a packet travels.
const CLOSING_PATIENCE: Duration = Duration::from_millis(500);
/// A reply that ended after the door was closed had begun before, and did not say that it was the last. Its client has
/// to read what lies in the buffers, and may then ask again.
const READING_PATIENCE: Duration = Duration::from_secs(5);

/// What a client has to take of a reply within the write timeout.
pub(super) const TAKEN_BYTES: usize = 64 << 10;

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request takes too long.
    Head,
    /// No request comes.
    Idle,
    /// The client does not take its reply.
    Reply,
}

/// How requests are told apart on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// One after the other.
    Http1,
    /// In streams side by side, with other frames in between.
    Http2,
}

/// Shared by a connection's bytes, its requests and its replies, who say what happens.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(Instant::now()))))
    }

    /// Bytes have come from the client.
    pub(super) fn received(&self) {
        self.state().received(Instant::now());
    }

    /// The operating system has taken bytes for the client.
    pub(super) fn wrote(&self, bytes: usize) {
        self.state().wrote(bytes, Instant::now());
    }

    /// A whole head has been read. The request ends when the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>, protocol: Protocol) -> UnderWay {
        UnderWay { number: self.state().begin_request(protocol), activity: Arc::clone(self) }
    }

    /// What the first request showed it to be.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.state().protocol
    }

    /// Whether a request is being read, worked on or answered.
    pub(super) fn is_busy(&self) -> bool {
        self.state().under_way > 0
    }

    /// Whether the connection has become too slow. `closing` is when the server closed its door.
    pub(super) fn overdue(&self, limits: &ConnectionLimits, closing: Option<Instant>) -> Option<Overdue> {
        self.state().overdue(Instant::now(), limits, closing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request from its head to the end of its reply.
#[derive(Debug)]
pub(super) struct UnderWay {
    number: u64,
    activity: Arc<Activity>,
}

impl UnderWay {
    /// How the request came.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.activity.protocol()
    }

    /// A piece of the reply is there for the client to take.
    pub(super) fn offered(&self) {
        self.activity.state().offered(self.number, Instant::now());
    }

    /// The client has room for another piece.
    pub(super) fn taken(&self) {
        self.activity.state().taken(self.number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.activity.state().end_request(self.number, Instant::now());
    }
}

#[derive(Debug)]
struct State {
    protocol: Option<Protocol>,
    /// Requests so far; a request's number is the count before it.
    begun: u64,
    under_way: usize,
    /// Since when there is no request.
    quiet_since: Instant,
    /// When the first byte after the last request came.
    head_since: Option<Instant>,
    /// Replies of which a piece waits to be taken, and since when.
    offered: BTreeMap<u64, Instant>,
    /// Bytes that went out since a piece was offered, or enough of one was taken.
    wrote: usize,
}

impl State {
    fn new(now: Instant) -> Self {
        let offered = BTreeMap::new();
        Self { protocol: None, begun: 0, under_way: 0, quiet_since: now, head_since: None, offered, wrote: 0 }
    }

    fn received(&mut self, now: Instant) {
        // Between requests of HTTP/2 there is housekeeping.
        if self.under_way == 0 && self.protocol != Some(Protocol::Http2) {
            self.head_since.get_or_insert(now);
        }
    }

    fn begin_request(&mut self, protocol: Protocol) -> u64 {
        self.protocol = Some(protocol);
        let number = self.begun;
        self.begun += 1;
        self.under_way += 1;
        self.head_since = None;
        number
    }

    fn end_request(&mut self, number: u64, now: Instant) {
        self.offered.remove(&number);
        self.under_way -= 1;
        if self.under_way == 0 {
            self.quiet_since = now;
        }
    }

    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.wrote += bytes;
        // Of HTTP/2 it cannot be told here whose they were.
        if self.wrote >= TAKEN_BYTES && self.protocol == Some(Protocol::Http1) {
            self.wrote = 0;
            self.offered.values_mut().for_each(|since| *since = now);
        }
    }

    fn offered(&mut self, number: u64, now: Instant) {
        self.wrote = 0;
        self.offered.insert(number, now);
    }

    fn taken(&mut self, number: u64) {
        self.offered.remove(&number);
    }

    fn overdue(&self, now: Instant, limits: &ConnectionLimits, closing: Option<Instant>) -> Option<Overdue> {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.offered.values().any(|&offered| since(offered) >= limits.write_timeout) {
            return Some(Overdue::Reply);
        }
        if self.under_way > 0 {
            return None;
        }
        if let Some(begun) = self.head_since {
            return (since(begun) >= limits.header_timeout).then_some(Overdue::Head);
        }
        if let Some(closing) = closing {
            let (start, patience) = if self.quiet_since > closing {
                (self.quiet_since, READING_PATIENCE)
            } else {
                (closing, CLOSING_PATIENCE)
            };
            return (since(start) >= patience).then_some(Overdue::Idle);
        }
        let patience = if self.begun == 0 { limits.header_timeout } else { limits.idle_timeout };
        (since(self.quiet_since) >= patience).then_some(Overdue::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits {
        max: 1,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        write_timeout: Duration::from_secs(30),
    };

    /// A connection, and a clock that starts with it.
    fn connection() -> (State, impl Fn(f64) -> Instant) {
        let start = Instant::now();
        (State::new(start), move |seconds| start + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_head_that_drips_is_too_slow_however_often_it_drips() {
        let (mut state, at) = connection();
        for second in 1..=10 {
            state.received(at(f64::from(second)));
        }
        assert_eq!(state.overdue(at(10.9), &LIMITS, None), None);
        assert_eq!(state.overdue(at(11.0), &LIMITS, None), Some(Overdue::Head));
    }

    #[test]
    fn silence_is_borne_longer_after_a_request_than_before() {
        let (mut state, at) = connection();
        assert_eq!(state.overdue(at(10.0), &LIMITS, None), Some(Overdue::Idle));
        state.received(at(1.0));
        let request = state.begin_request(Protocol::Http1);
        assert_eq!(state.overdue(at(1000.0), &LIMITS, None), None, "the work has deadlines of its own");
        state.received(at(1000.0));
        state.end_request(request, at(1000.0));
        assert_eq!(state.overdue(at(1074.0), &LIMITS, None), None);
        assert_eq!(state.overdue(at(1075.0), &LIMITS, None), Some(Overdue::Idle));
        state.received(at(1074.0));
        assert_eq!(state.overdue(at(1083.9), &LIMITS, None), None, "a head has begun");
    }

    #[test]
    fn housekeeping_of_http2_is_no_head() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http2);
        state.end_request(request, at(1.0));
        state.received(at(2.0));
        assert_eq!(state.overdue(at(75.9), &LIMITS, None), None);
        assert_eq!(state.overdue(at(76.0), &LIMITS, None), Some(Overdue::Idle));
    }

    #[test]
    fn one_reply_that_is_not_taken_is_noticed_among_others() {
        let (mut state, at) = connection();
        let (stuck, flowing) = (state.begin_request(Protocol::Http1), state.begin_request(Protocol::Http1));
        state.offered(stuck, at(0.0));
        for second in 0..30 {
            state.offered(flowing, at(f64::from(second)));
            state.taken(flowing);
        }
        assert_eq!(state.overdue(at(29.9), &LIMITS, None), None);
        assert_eq!(state.overdue(at(30.0), &LIMITS, None), Some(Overdue::Reply));
        state.end_request(stuck, at(31.0));
        assert_eq!(state.overdue(at(100.0), &LIMITS, None), None, "the next piece is being computed");
    }

    #[test]
    fn a_large_piece_is_taken_little_by_little() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        state.offered(request, at(0.0));
        state.wrote(TAKEN_BYTES - 1, at(20.0));
        assert_eq!(state.overdue(at(30.0), &LIMITS, None), Some(Overdue::Reply), "too little");
        state.wrote(1, at(29.0));
        assert_eq!(state.overdue(at(58.9), &LIMITS, None), None);
        assert_eq!(state.overdue(at(59.0), &LIMITS, None), Some(Overdue::Reply));
    }

    #[test]
    fn one_stream_of_http2_does_not_excuse_another() {
        let (mut state, at) = connection();
        let stuck = state.begin_request(Protocol::Http2);
        state.offered(stuck, at(0.0));
        state.wrote(10 * TAKEN_BYTES, at(20.0));
        assert_eq!(state.overdue(at(30.0), &LIMITS, None), Some(Overdue::Reply));
    }

    #[test]
    fn when_the_door_closes_a_request_may_be_on_its_way() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        state.end_request(request, at(0.5));
        assert_eq!(state.overdue(at(1.4), &LIMITS, Some(at(1.0))), None);
        assert_eq!(state.overdue(at(1.5), &LIMITS, Some(at(1.0))), Some(Overdue::Idle));
        state.received(at(1.4));
        assert_eq!(state.overdue(at(2.0), &LIMITS, Some(at(1.0))), None, "it was");
    }

    #[test]
    fn who_is_still_reading_when_the_door_closes_may_ask_once_more() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        assert_eq!(state.overdue(at(9.0), &LIMITS, Some(at(1.0))), None, "the reply is not at its end");
        state.end_request(request, at(9.0));
        assert_eq!(state.overdue(at(13.9), &LIMITS, Some(at(1.0))), None);
        assert_eq!(state.overdue(at(14.0), &LIMITS, Some(at(1.0))), Some(Overdue::Idle));
    }
}
