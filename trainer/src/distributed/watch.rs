//! Who is still there: every process of a run hears of the others, by a connection of its own.
//!
//! Collectives tell that something is wrong, but neither what nor with whom: a process that is
//! killed breaks its neighbours' connections, whose ends break the next ones, and one that hangs or
//! cannot be reached breaks nothing at all. So every process keeps a connection to process 0,
//! through which both say every second that they are alive. Process 0 tells all others of the first
//! loss, and of its reason: an error that the process gave itself, the end of its connection, or
//! silence. A process that merely is slow is never lost.
//!
//! Messages are lines of JSON. Nothing here knows of tensors.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time between two signs of life, at most.
const BEAT: Duration = Duration::from_secs(1);

/// How long a process that fails waits for its last message to be heard.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long a process may take to end after a loss, where it is ended if need be.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// Bytes of a first line, at most.
const LONGEST_GREETING: usize = 100;

/// A process without which the run cannot go on, and why it is lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("rank {rank} {reason}")]
pub struct Loss {
    /// The process.
    pub rank: usize,
    /// What follows its name.
    pub reason: String,
}

impl Loss {
    fn failed(rank: usize, error: &str) -> Self {
        Self { rank, reason: format!("has failed: {error}") }
    }

    fn vanished(rank: usize) -> Self {
        Self { rank, reason: "is gone: its process was killed or has crashed".to_owned() }
    }

    fn silent(rank: usize, patience: Duration) -> Self {
        let seconds = patience.as_secs();
        let reason = format!("has not been heard of for {seconds} s: its process hangs, or the link to it is cut");
        Self { rank, reason }
    }
}

/// What processes say to each other.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Message {
    /// This process has connected.
    Hello { rank: usize },
    /// A sign of life.
    Alive,
    /// The run cannot go on.
    Lost(Loss),
    /// All is done; the connection will end.
    Done,
}

/// The eye that a process keeps on the others.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    rank: usize,
    /// To all others at process 0, to process 0 at the others.
    links: Vec<Link>,
    /// Held while something is said, so that lines stay whole.
    speaking: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
    patience: Duration,
}

#[derive(Debug)]
struct Link {
    peer: usize,
    stream: TcpStream,
}

#[derive(Debug, Default)]
struct State {
    loss: Option<Loss>,
    /// Connections that have ended, as they should or not.
    ended: usize,
    /// Whether this process needs nobody any more.
    over: bool,
}

/// The place where process 0 waits for the others' connections.
#[derive(Debug)]
pub struct Gate(TcpListener);

impl Gate {
    /// Opens it on a free port of all addresses.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn open() -> io::Result<Self> {
        // Both families where the system has them.
        let listener = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0"))?;
        Ok(Self(listener))
    }

    /// The port.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.0.local_addr()?.port())
    }

    /// Waits for the connections of all `size − 1` others.
    ///
    /// # Errors
    /// If they do not come in time.
    pub fn admit(self, size: usize, patience: Duration) -> io::Result<Watch> {
        self.0.set_nonblocking(true)?;
        let deadline = Instant::now() + patience;
        let mut links: Vec<Link> = Vec::new();
        while links.len() + 1 < size {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    // A stranger at the door, a scanner of ports for example, is no reason to end.
                    if let Some(link) = greeted(stream, patience).filter(|new| links.iter().all(|l| l.peer != new.peer))
                    {
                        links.push(link);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() > deadline {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error),
            }
        }
        Watch::start(0, links, patience)
    }
}

/// The first line of a connection, which says whose it is.
fn greeted(stream: TcpStream, patience: Duration) -> Option<Link> {
    stream.set_read_timeout(Some(patience.min(BEAT))).ok()?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    // Byte by byte, so that nothing is taken of what follows.
    while line.len() < LONGEST_GREETING && byte != *b"\n" {
        (&stream).read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    match serde_json::from_slice(&line) {
        Ok(Message::Hello { rank: peer @ 1.. }) => Some(Link { peer, stream }),
        _ => None,
    }
}

impl Watch {
    /// Connects to process 0, whose gate is at this place.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub fn join(rank: usize, gate: (&str, u16), patience: Duration) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in gate.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    let link = Link { peer: 0, stream };
                    link.say(&Message::Hello { rank })?;
                    return Self::start(rank, vec![link], patience);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    fn start(rank: usize, links: Vec<Link>, patience: Duration) -> io::Result<Self> {
        for Link { stream, .. } in &links {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
        }
        let (speaking, state, changed) = (Mutex::default(), Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { rank, links, speaking, state, changed, patience });
        let mut watch = Self { shared: Arc::clone(&shared), threads: Vec::new() };
        for index in 0..shared.links.len() {
            let shared = Arc::clone(&shared);
            watch.spawn("watch", move || shared.listen(index))?;
        }
        watch.spawn("alive", move || shared.beat())?;
        Ok(watch)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.to_owned()).spawn(body)?);
        Ok(())
    }

    /// From now on ends the process if it is still there a while after a loss, because it waits for
    /// what it cannot be woken from.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub fn end_process_after_loss(&mut self) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        self.spawn("end", move || {
            shared.wait(Duration::MAX, |state| state.over || state.loss.is_some());
            shared.wait(LAST_WORDS, |state| state.over);
            let state = shared.state();
            if let (false, Some(loss)) = (state.over, &state.loss) {
                tracing::error!(%loss, "the device does not come back; go on from the last checkpoint with --resume");
                process::abort();
            }
        })
    }

    /// The first loss, if there is one.
    pub fn loss(&self) -> Option<Loss> {
        self.shared.state().loss.clone()
    }

    /// The loss that explains why a collective has failed; waits for it as long as a process may
    /// be silent.
    pub fn explain(&self) -> Option<Loss> {
        let patience = self.shared.patience + BEAT;
        self.shared.wait(patience, |state| state.loss.is_some());
        self.loss()
    }

    /// Tells the others that this process cannot go on.
    pub fn fail(&self, error: &str) {
        self.shared.lose(Loss::failed(self.shared.rank, error));
        self.part();
    }

    /// Tells the others that this process is done, and waits until they are.
    pub fn finish(&self) {
        self.shared.state().over = true;
        self.shared.tell(&Message::Done);
        self.part();
    }

    /// Whether this process was done when nothing was lost.
    pub fn is_finished(&self) -> bool {
        let state = self.shared.state();
        state.over && state.loss.is_none()
    }

    /// Waits until the others have heard what was said last. A connection that is closed with
    /// anything unread in it would take it along.
    fn part(&self) {
        for link in &self.shared.links {
            let _ = link.stream.shutdown(Shutdown::Write);
        }
        self.shared.wait(FAREWELL, |state| state.ended == self.shared.links.len());
    }
}

impl Drop for Watch {
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

impl Link {
    fn say(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        (&self.stream).write_all(line.as_bytes())
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, patience: Duration, come: impl Fn(&State) -> bool) {
        let state = self.state();
        let waited = self.changed.wait_timeout_while(state, patience, |state| !come(state));
        drop(waited);
    }

    /// Says it to all, as far as they can be reached.
    fn tell(&self, message: &Message) {
        let _alone = self.speaking.lock().unwrap_or_else(PoisonError::into_inner);
        for link in &self.links {
            // Who cannot be written to is missed by the thread that reads from it.
            let _ = link.say(message);
        }
    }

    /// Notes the first loss and tells of it: process 0 all others, another one process 0.
    fn lose(&self, loss: Loss) {
        let mut state = self.state();
        if state.loss.is_some() || state.over {
            return;
        }
        state.loss = Some(loss.clone());
        drop(state);
        self.changed.notify_all();
        self.tell(&Message::Lost(loss));
    }

    /// Says that this process is alive until it is over.
    fn beat(&self) {
        let pause = BEAT.min(self.patience / 5);
        let mut state = self.state();
        while !state.over {
            drop(state);
            self.tell(&Message::Alive);
            state = self.state();
            if !state.over {
                let woken = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner);
                state = woken.0;
            }
        }
    }

    /// Reads what a process says until it has nothing more to say.
    fn listen(&self, index: usize) {
        let Link { peer, stream } = &self.links[index];
        let (mut reader, mut line) = (BufReader::new(stream), String::new());
        loop {
            line.clear();
            let read = reader.read_line(&mut line);
            match (read, serde_json::from_str(&line)) {
                (Ok(1..), Ok(Message::Alive)) => {}
                (Ok(1..), Ok(Message::Lost(loss))) => self.lose(loss),
                (Ok(1..), Ok(Message::Done)) => break,
                (Err(error), _) if is_timeout(&error) => {
                    self.lose(Loss::silent(*peer, self.patience));
                    break;
                }
                _ => {
                    self.lose(Loss::vanished(*peer));
                    break;
                }
            }
        }
        // Lets a process that waits for this one part.
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
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(600);

    /// The watches of processes that all run here.
    fn watches(size: usize) -> Vec<Watch> {
        let gate = Gate::open().unwrap();
        let port = gate.port().unwrap();
        let joining: Vec<_> =
            (1..size).map(|rank| thread::spawn(move || Watch::join(rank, ("localhost", port), PATIENCE))).collect();
        // Who has nothing to say is not let in.
        drop(TcpStream::connect(("localhost", port)).unwrap());
        let mut all = vec![gate.admit(size, PATIENCE).unwrap()];
        all.extend(joining.into_iter().map(|thread| thread.join().unwrap().unwrap()));
        all
    }

    fn explained(watch: &Watch) -> String {
        watch.explain().expect("an explanation").to_string()
    }

    #[test]
    fn who_is_there_stays_there() {
        let all = watches(3);
        thread::sleep(2 * PATIENCE);
        assert!(all.iter().all(|watch| watch.loss().is_none()));
        let parting = all.into_iter().map(|watch| thread::spawn(move || watch.finish()));
        let started = Instant::now();
        parting.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert!(started.elapsed() < FAREWELL, "nobody waits in vain");
    }

    #[test]
    fn an_error_is_told_to_all() {
        for failing in [0, 2] {
            let mut all = watches(3);
            all[failing].fail("no space left");
            drop(all.remove(failing));
            for watch in &all {
                assert_eq!(explained(watch), format!("rank {failing} has failed: no space left"));
            }
        }
    }

    #[test]
    fn who_ends_without_a_word_is_named() {
        for killed in [0, 1] {
            let mut all = watches(3);
            drop(all.remove(killed));
            for watch in &all {
                assert!(explained(watch).starts_with(&format!("rank {killed} is gone")));
            }
        }
    }

    /// The stranger answers as rank 1, and then nothing any more.
    #[test]
    fn who_is_silent_is_named_in_time() {
        let gate = Gate::open().unwrap();
        let stranger = TcpStream::connect(("localhost", gate.port().unwrap())).unwrap();
        Link { peer: 0, stream: stranger.try_clone().unwrap() }.say(&Message::Hello { rank: 1 }).unwrap();
        let started = Instant::now();
        let watch = gate.admit(2, PATIENCE).unwrap();
        assert!(explained(&watch).starts_with("rank 1 has not been heard of"));
        assert!(started.elapsed() < 3 * PATIENCE);
    }
}
