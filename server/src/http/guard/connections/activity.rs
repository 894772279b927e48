//! Activity of one connection, and the timeouts that close it when its client is too slow.
//!
//! The rules are in [`State`], which takes the time as a parameter.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::ConnectionLimits;

/// Time that an idle connection stays open after the server stopped accepting: a request may already be on its way.
const CLOSING_TIMEOUT: Duration = Duration::from_millis(500);
/// Time that a connection stays open after a reply that ended while the server was closing, or after a large one that
/// ended before. The reply began without `Connection: close`, so its client may read what is buffered and send another
/// request.
const CLOSING_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a reply that a client must take within the write timeout.
pub(super) const TAKEN_BYTES: usize = 64 << 10;

/// Reason to close a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ConnectionTimeout {
    /// The head of a request did not arrive in time.
    Head,
    /// No request arrived in time.
    Idle,
    /// The client did not take its reply in time.
    Reply,
}

/// HTTP version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Requests follow one another.
    Http1,
    /// Requests are concurrent streams, with other frames in between.
    Http2,
}

/// Activity of one connection, reported by its byte stream, its requests and its replies.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(Instant::now()))))
    }

    /// Records that bytes have arrived from the client.
    pub(super) fn received(&self) {
        self.state().received(Instant::now());
    }

    /// Records that the operating system has accepted bytes for the client.
    pub(super) fn wrote(&self, bytes: usize) {
        self.state().wrote(bytes, Instant::now());
    }

    /// Records that the whole head of a request has been read. The request ends when the guard is dropped.
    pub(super) fn begin_request(self: &Arc<Self>, protocol: Protocol) -> RequestGuard {
        RequestGuard { number: self.state().begin_request(protocol), activity: Arc::clone(self) }
    }

    /// The protocol; `None` until the first request.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.state().protocol
    }

    /// True while a request is being read, processed or answered.
    pub(super) fn is_busy(&self) -> bool {
        self.state().active_requests > 0
    }

    /// The timeout that has passed, if any. `closing` is the time at which the server stopped accepting connections.
    pub(super) fn timeout(&self, limits: &ConnectionLimits, closing: Option<Instant>) -> Option<ConnectionTimeout> {
        self.state().timeout(Instant::now(), limits, closing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Guard of a request, from its head to the end of its reply.
#[derive(Debug)]
pub(super) struct RequestGuard {
    number: u64,
    activity: Arc<Activity>,
}

impl RequestGuard {
    /// Protocol of the connection.
    pub(super) fn protocol(&self) -> Option<Protocol> {
        self.activity.protocol()
    }

    /// Records that a piece of the reply is ready for the client.
    pub(super) fn offered(&self) {
        self.activity.state().offered(self.number, Instant::now());
    }

    /// Records that the connection has room for another piece.
    pub(super) fn taken(&self) {
        self.activity.state().taken(self.number);
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.activity.state().end_request(self.number, Instant::now());
    }
}

#[derive(Debug)]
struct State {
    protocol: Option<Protocol>,
    /// Number of requests so far, which numbers the next request.
    begun: u64,
    active_requests: usize,
    /// Time since which there is no request.
    quiet_since: Instant,
    /// Arrival of the first byte after the last request.
    head_since: Option<Instant>,
    /// Replies with a piece that waits to be taken, and the time since when it waits.
    offered: BTreeMap<u64, Instant>,
    /// Bytes written since a piece was offered, or since the last [`TAKEN_BYTES`].
    wrote: usize,
    /// Bytes written since the last request began. More than [`TAKEN_BYTES`] may still be in the operating system's
    /// buffers when the reply has ended here.
    wrote_of_reply: usize,
}

impl State {
    fn new(now: Instant) -> Self {
        let offered = BTreeMap::new();
        Self {
            protocol: None,
            begun: 0,
            active_requests: 0,
            quiet_since: now,
            head_since: None,
            offered,
            wrote: 0,
            wrote_of_reply: 0,
        }
    }

    fn received(&mut self, now: Instant) {
        // HTTP/2 sends control frames between requests.
        if self.active_requests == 0 && self.protocol != Some(Protocol::Http2) {
            self.head_since.get_or_insert(now);
        }
    }

    fn begin_request(&mut self, protocol: Protocol) -> u64 {
        self.protocol = Some(protocol);
        let number = self.begun;
        self.begun += 1;
        self.active_requests += 1;
        self.head_since = None;
        self.wrote_of_reply = 0;
        number
    }

    fn end_request(&mut self, number: u64, now: Instant) {
        self.offered.remove(&number);
        self.active_requests -= 1;
        if self.active_requests == 0 {
            self.quiet_since = now;
        }
    }

    fn wrote(&mut self, bytes: usize, now: Instant) {
        self.wrote += bytes;
        self.wrote_of_reply = self.wrote_of_reply.saturating_add(bytes);
        // With HTTP/2 the bytes may belong to any of the streams.
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

    fn timeout(&self, now: Instant, limits: &ConnectionLimits, closing: Option<Instant>) -> Option<ConnectionTimeout> {
        let since = |then: Instant| now.saturating_duration_since(then);
        if self.offered.values().any(|&offered| since(offered) >= limits.write_timeout) {
            return Some(ConnectionTimeout::Reply);
        }
        if self.active_requests > 0 {
            return None;
        }
        if let Some(begun) = self.head_since {
            return (since(begun) >= limits.header_timeout).then_some(ConnectionTimeout::Head);
        }
        if let Some(closing) = closing {
            let may_be_reading = self.quiet_since > closing || self.wrote_of_reply > TAKEN_BYTES;
            let is_over = since(closing) >= CLOSING_TIMEOUT
                && (!may_be_reading || since(self.quiet_since) >= CLOSING_REPLY_TIMEOUT);
            return is_over.then_some(ConnectionTimeout::Idle);
        }
        let timeout = if self.begun == 0 { limits.header_timeout } else { limits.idle_timeout };
        (since(self.quiet_since) >= timeout).then_some(ConnectionTimeout::Idle)
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
    fn the_head_timeout_starts_at_the_first_byte() {
        let (mut state, at) = connection();
        for second in 1..=10 {
            state.received(at(f64::from(second)));
        }
        assert_eq!(state.timeout(at(10.9), &LIMITS, None), None);
        assert_eq!(state.timeout(at(11.0), &LIMITS, None), Some(ConnectionTimeout::Head));
    }

    #[test]
    fn the_idle_timeout_applies_after_the_first_request() {
        let (mut state, at) = connection();
        assert_eq!(state.timeout(at(10.0), &LIMITS, None), Some(ConnectionTimeout::Idle));
        state.received(at(1.0));
        let request = state.begin_request(Protocol::Http1);
        assert_eq!(state.timeout(at(1000.0), &LIMITS, None), None, "the work has deadlines of its own");
        state.received(at(1000.0));
        state.end_request(request, at(1000.0));
        assert_eq!(state.timeout(at(1074.0), &LIMITS, None), None);
        assert_eq!(state.timeout(at(1075.0), &LIMITS, None), Some(ConnectionTimeout::Idle));
        state.received(at(1074.0));
        assert_eq!(state.timeout(at(1083.9), &LIMITS, None), None, "a head has begun");
    }

    #[test]
    fn control_frames_of_http2_do_not_start_a_head() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http2);
        state.end_request(request, at(1.0));
        state.received(at(2.0));
        assert_eq!(state.timeout(at(75.9), &LIMITS, None), None);
        assert_eq!(state.timeout(at(76.0), &LIMITS, None), Some(ConnectionTimeout::Idle));
    }

    #[test]
    fn one_stalled_reply_among_others_times_out() {
        let (mut state, at) = connection();
        let (stuck, flowing) = (state.begin_request(Protocol::Http1), state.begin_request(Protocol::Http1));
        state.offered(stuck, at(0.0));
        for second in 0..30 {
            state.offered(flowing, at(f64::from(second)));
            state.taken(flowing);
        }
        assert_eq!(state.timeout(at(29.9), &LIMITS, None), None);
        assert_eq!(state.timeout(at(30.0), &LIMITS, None), Some(ConnectionTimeout::Reply));
        state.end_request(stuck, at(31.0));
        assert_eq!(state.timeout(at(100.0), &LIMITS, None), None, "the next piece is being computed");
    }

    #[test]
    fn a_large_piece_may_be_taken_in_parts() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        state.offered(request, at(0.0));
        state.wrote(TAKEN_BYTES - 1, at(20.0));
        assert_eq!(state.timeout(at(30.0), &LIMITS, None), Some(ConnectionTimeout::Reply), "one byte too few");
        state.wrote(1, at(29.0));
        assert_eq!(state.timeout(at(58.9), &LIMITS, None), None);
        assert_eq!(state.timeout(at(59.0), &LIMITS, None), Some(ConnectionTimeout::Reply));
    }

    #[test]
    fn bytes_of_one_http2_stream_do_not_count_for_another() {
        let (mut state, at) = connection();
        let stuck = state.begin_request(Protocol::Http2);
        state.offered(stuck, at(0.0));
        state.wrote(10 * TAKEN_BYTES, at(20.0));
        assert_eq!(state.timeout(at(30.0), &LIMITS, None), Some(ConnectionTimeout::Reply));
    }

    #[test]
    fn a_closing_server_waits_for_a_request_on_its_way() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        state.end_request(request, at(0.5));
        assert_eq!(state.timeout(at(1.4), &LIMITS, Some(at(1.0))), None);
        assert_eq!(state.timeout(at(1.5), &LIMITS, Some(at(1.0))), Some(ConnectionTimeout::Idle));
        state.received(at(1.4));
        assert_eq!(state.timeout(at(2.0), &LIMITS, Some(at(1.0))), None, "a request has arrived");
    }

    #[test]
    fn a_large_reply_that_ended_before_closing_may_still_be_read() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        state.wrote(TAKEN_BYTES + 1, at(0.5));
        state.end_request(request, at(0.5));
        assert_eq!(state.timeout(at(5.4), &LIMITS, Some(at(1.0))), None);
        assert_eq!(state.timeout(at(5.5), &LIMITS, Some(at(1.0))), Some(ConnectionTimeout::Idle));
        assert_eq!(
            state.timeout(at(9.4), &LIMITS, Some(at(9.0))),
            None,
            "read long ago, but a request may be on its way"
        );
        let request = state.begin_request(Protocol::Http1);
        state.wrote(100, at(6.0));
        state.end_request(request, at(6.0));
        assert_eq!(
            state.timeout(at(7.5), &LIMITS, Some(at(7.0))),
            Some(ConnectionTimeout::Idle),
            "a small one was read"
        );
    }

    #[test]
    fn a_reply_that_ends_while_closing_allows_another_request() {
        let (mut state, at) = connection();
        let request = state.begin_request(Protocol::Http1);
        assert_eq!(state.timeout(at(9.0), &LIMITS, Some(at(1.0))), None, "the reply has not ended");
        state.end_request(request, at(9.0));
        assert_eq!(state.timeout(at(13.9), &LIMITS, Some(at(1.0))), None);
        assert_eq!(state.timeout(at(14.0), &LIMITS, Some(at(1.0))), Some(ConnectionTimeout::Idle));
    }
}
