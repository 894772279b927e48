//! Connections between process 0 and the others: their messages, and how they are made.
//!
//! Messages are lines of JSON. What they mean for a run is `watch`'s to know.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Most bytes of the first line of a connection.
const MAX_HELLO_BYTES: usize = 100;

/// Longest wait for the first line of a connection.
const HELLO_TIMEOUT: Duration = Duration::from_secs(1);

/// A process that the run has lost, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("rank {rank} {reason}")]
pub struct LostRank {
    /// The process.
    pub rank: usize,
    /// The rest of the sentence that begins with its number.
    pub reason: String,
}

impl LostRank {
    pub(super) fn failed(rank: usize, error: &str) -> Self {
        Self { rank, reason: format!("has failed: {error}") }
    }

    pub(super) fn vanished(rank: usize) -> Self {
        Self { rank, reason: "is gone: its process was killed or has crashed".to_owned() }
    }

    pub(super) fn silent(rank: usize, timeout: Duration) -> Self {
        let seconds = timeout.as_secs();
        let reason = format!("has not been heard of for {seconds} s: its process hangs, or the link to it is cut");
        Self { rank, reason }
    }
}

/// A message between process 0 and another one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// This process has connected.
    Hello { rank: usize },
    /// The process is alive.
    Heartbeat,
    /// The run cannot go on.
    Lost(LostRank),
    /// The process has finished; the connection will end.
    Done,
}

/// The connection to a process.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: usize,
    pub(super) stream: TcpStream,
}

impl Link {
    /// Connects process `rank` to process 0, which listens at this host and port.
    pub(super) fn connect(rank: usize, address: (&str, u16), timeout: Duration) -> io::Result<Self> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for socket in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&socket, timeout) {
                Ok(stream) => {
                    let link = Self { peer: 0, stream };
                    link.send(&Message::Hello { rank })?;
                    return Ok(link);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Sends a message.
    pub(super) fn send(&self, message: &Message) -> io::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        (&self.stream).write_all(line.as_bytes())
    }
}

/// The port at which process 0 waits for the connections of the others.
#[derive(Debug)]
pub struct PeerListener(TcpListener);

impl PeerListener {
    /// Binds a free port of all addresses.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn bind() -> io::Result<Self> {
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
    /// If they do not connect within `timeout`.
    pub(super) fn accept_all(self, size: usize, timeout: Duration) -> io::Result<Vec<Link>> {
        self.0.set_nonblocking(true)?;
        let deadline = Instant::now() + timeout;
        let mut links: Vec<Link> = Vec::new();
        while links.len() + 1 < size {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    // Connections that are not of this run, such as a port scanner's, are ignored.
                    if let Some(link) =
                        read_hello(stream, timeout).filter(|new| links.iter().all(|l| l.peer != new.peer))
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
        Ok(links)
    }
}

/// Reads the first line of a connection, which holds the rank of the other process.
fn read_hello(stream: TcpStream, timeout: Duration) -> Option<Link> {
    stream.set_read_timeout(Some(timeout.min(HELLO_TIMEOUT))).ok()?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    // Byte by byte, so that nothing is read of the lines that follow.
    while line.len() < MAX_HELLO_BYTES && byte != *b"\n" {
        (&stream).read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    match serde_json::from_slice(&line) {
        Ok(Message::Hello { rank: peer @ 1.. }) => Some(Link { peer, stream }),
        _ => None,
    }
}
