//! Detects processes that are lost, and tells all others which one and why.
//!
//! A failed collective says neither what is wrong nor with which process: a killed process breaks
//! the connections of its neighbours, which break the next ones, and a process that hangs or cannot
//! be reached breaks none. So every process keeps a connection to process 0, through which both send
//! a heartbeat every second. Process 0 tells all others of the first loss and its reason: an error
//! that the process reported, the end of its connection, or missing heartbeats. A process that is
//! only slow is never lost.
//!
//! This module does not handle tensors.

use std::io::{self, BufRead, BufReader};
use std::net::Shutdown;
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::peer_link::{Link, LostRank, Message, PeerListener};

/// Longest time between two heartbeats.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);

/// Longest time that a process which ends waits for the others to have read its last message.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Time after a loss at which a process that has not ended by itself is aborted.
const ABORT_AFTER_LOSS: Duration = Duration::from_secs(15);

/// The connections of a process to the others, and what is known of them.
#[derive(Debug)]
pub struct PeerWatch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    rank: usize,
    /// Process 0: to all others; any other process: to process 0.
    links: Vec<Link>,
    /// Held while a line is written, so that lines stay whole.
    writing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    timeout: Duration,
}

#[derive(Debug, Default)]
struct State {
    loss: Option<LostRank>,
    /// Number of connections that have ended, as expected or not.
    ended: usize,
    /// `true` once this process has finished.
    over: bool,
}

impl PeerWatch {
    /// Connects to process 0, which listens at this host and port.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn connect(rank: usize, address: (&str, u16), timeout: Duration) -> io::Result<Self> {
        Self::start(rank, vec![Link::connect(rank, address, timeout)?], timeout)
    }

    /// At process 0: waits for the connections of all `size − 1` others.
    ///
    /// # Errors
    /// If they do not connect within `timeout`.
    pub fn accept(listener: PeerListener, size: usize, timeout: Duration) -> io::Result<Self> {
        Self::start(0, listener.accept_all(size, timeout)?, timeout)
    }

    fn start(rank: usize, links: Vec<Link>, timeout: Duration) -> io::Result<Self> {
        for Link { stream, .. } in &links {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
        }
        let (writing, state, changed) = (Mutex::default(), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { rank, links, writing, state, changed, timeout });
        let mut watch = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for index in 0..shared.links.len() {
            let shared = Arc::clone(&shared);
            watch.spawn("peer", move || shared.receive(index))?;
        }
        watch.spawn("heartbeat", move || shared.send_heartbeats())?;
        Ok(watch)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// From now on aborts the process if it still runs some time after a loss, because it waits for
    /// a collective that cannot be interrupted.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn end_process_after_loss(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.spawn("abort", move || {
            shared.wait(Duration::MAX, |state| state.over || state.loss.is_some());
            shared.wait(ABORT_AFTER_LOSS, |state| state.over);
            let state = shared.state();
            if let (false, Some(loss)) = (state.over, &state.loss) {
                tracing::error!(%loss, "the device does not come back; go on from the last checkpoint with --resume");
                process::abort();
            }
        })
    }

    /// The first loss, if there is one.
    pub fn loss(&self) -> Option<LostRank> {
        self.shared.state().loss.clone()
    }

    /// The loss because of which a collective has failed; waits for it for as long as heartbeats may
    /// be missing.
    pub fn wait_for_loss(&self) -> Option<LostRank> {
        let timeout = self.shared.timeout + HEARTBEAT_INTERVAL;
        self.shared.wait(timeout, |state| state.loss.is_some());
        self.loss()
    }

    /// Tells the others that this process cannot go on.
    pub fn fail(&self, error: &str) {
        self.shared.record_loss(LostRank::failed(self.shared.rank, error));
        self.close();
    }

    /// Tells the others that this process has finished, and waits until they have.
    pub fn finish(&self) {
        self.shared.state().over = true;
        self.shared.broadcast(&Message::Done);
        self.close();
    }

    /// Returns `true` if this process has finished without a loss.
    pub fn is_finished(&self) -> bool {
        let state = self.shared.state();
        state.over && state.loss.is_none()
    }

    /// Waits until the others have read the last message: a connection that is closed earlier would
    /// discard it.
    fn close(&self) {
        for link in &self.shared.links {
            let _ = link.stream.shutdown(Shutdown::Write);
        }
        self.shared.wait(CLOSE_TIMEOUT, |state| state.ended == self.shared.links.len());
    }
}

impl Drop for PeerWatch {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.changed.notify_all();
        for link in &self.shared.links {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that watches the other ranks has panicked");
            }
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, timeout: Duration, condition: impl Fn(&State) -> bool) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, timeout, |state| !condition(state));
        drop(waited);
    }

    /// Sends a message to all others that can be reached.
    fn broadcast(&self, message: &Message) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        for link in &self.links {
            // The thread that reads from this connection detects that it is broken.
            let _ = link.send(message);
        }
    }

    /// Records the first loss and sends it: process 0 to all others, any other process to process 0.
    fn record_loss(&self, loss: LostRank) {
        let mut state = self.state();
        if state.loss.is_some() || state.over {
            return;
        }
        state.loss = Some(loss.clone());
        drop(state);
        self.changed.notify_all();
        self.broadcast(&Message::Lost(loss));
    }

    /// Sends heartbeats until this process has finished.
    fn send_heartbeats(&self) {
        let pause = HEARTBEAT_INTERVAL.min(self.timeout / 5);
        let mut state = self.state();
        while !state.over {
            drop(state);
            self.broadcast(&Message::Heartbeat);
            state = self.state();
            if !state.over {
                let woken = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state = woken.0;
            }
        }
    }

    /// Reads the messages of a process until its connection ends.
    fn receive(&self, index: usize) {
        let Link { peer, stream } = &self.links[index];
        let (mut reader, mut line) = (BufReader::new(stream), String::new());
        loop {
            line.clear();
            let read = reader.read_line(&mut line);
            match (read, serde_json::from_str(&line)) {
                (Ok(1..), Ok(Message::Heartbeat)) => {}
                (Ok(1..), Ok(Message::Lost(loss))) => self.record_loss(loss),
                (Ok(1..), Ok(Message::Done)) => break,
                (Err(error), _) if is_timeout(&error) => {
                    self.record_loss(LostRank::silent(*peer, self.timeout));
                    break;
                }
                _ => {
                    self.record_loss(LostRank::vanished(*peer));
                    break;
                }
            }
        }
        // A process that waits in `close` for this one can end.
        let _ = stream.shutdown(Shutdown::Write);
        self.state().ended += 1;
        self.changed.notify_all();
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// The watches of processes that all run here.
    fn watches(size: usize) -> Vec<PeerWatch> {
        let listener = PeerListener::bind().unwrap();
        let port = listener.port().unwrap();
        let connecting: Vec<_> = (1..size)
            .map(|rank| thread::spawn(move || PeerWatch::connect(rank, ("localhost", port), TIMEOUT)))
            .collect();
        // A connection without a first line is ignored.
        drop(TcpStream::connect(("localhost", port)).unwrap());
        let mut all = vec![PeerWatch::accept(listener, size, TIMEOUT).unwrap()];
        all.extend(connecting.into_iter().map(|thread| thread.join().unwrap().unwrap()));
        all
    }

    /// The watch of process 0, and the connection of a process 1 that the test plays.
    fn watch_of_one_peer() -> (PeerWatch, Link) {
        let listener = PeerListener::bind().unwrap();
        let stream = TcpStream::connect(("localhost", listener.port().unwrap())).unwrap();
        let link = Link { peer: 0, stream };
        link.send(&Message::Hello { rank: 1 }).unwrap();
        (PeerWatch::accept(listener, 2, TIMEOUT).unwrap(), link)
    }

    fn loss(watch: &PeerWatch) -> String {
        watch.wait_for_loss().expect("a loss").to_string()
    }

    /// Heartbeats are exchanged for longer than the timeout, then the connection ends as it should.
    #[test]
    fn a_process_with_heartbeats_is_not_lost() {
        let (watch, link) = watch_of_one_peer();
        let mut lines = BufReader::new(&link.stream).lines();
        // A heartbeat comes every fifth of the timeout.
        for _ in 0..11 {
            let line = lines.next().expect("a heartbeat").expect("a line");
            assert!(matches!(serde_json::from_str(&line), Ok(Message::Heartbeat)), "{line}");
            link.send(&Message::Heartbeat).unwrap();
        }
        link.send(&Message::Done).unwrap();
        watch.finish();
        assert_eq!(watch.loss(), None);
        assert!(watch.is_finished());
    }

    #[test]
    fn processes_that_finish_together_have_lost_none() {
        let finishing = watches(3).into_iter().map(|watch| {
            thread::spawn(move || {
                watch.finish();
                let state = watch.shared.state();
                (state.ended == watch.shared.links.len(), state.loss.clone())
            })
        });
        for thread in finishing.collect::<Vec<_>>() {
            assert_eq!(thread.join().unwrap(), (true, None));
        }
    }

    #[test]
    fn an_error_is_sent_to_all() {
        for failing in [0, 2] {
            let mut all = watches(3);
            all[failing].fail("no space left");
            drop(all.remove(failing));
            for watch in &all {
                assert_eq!(loss(watch), format!("rank {failing} has failed: no space left"));
            }
        }
    }

    #[test]
    fn a_process_that_ends_without_a_message_is_named() {
        for killed in [0, 1] {
            let mut all = watches(3);
            drop(all.remove(killed));
            for watch in &all {
                assert!(loss(watch).starts_with(&format!("rank {killed} is gone")));
            }
        }
    }

    #[test]
    fn a_process_without_heartbeats_is_named() {
        let (watch, _link) = watch_of_one_peer();
        assert!(loss(&watch).starts_with("rank 1 has not been heard of"));
    }
}
