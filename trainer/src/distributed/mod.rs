//! Processes that train one model together, each on its share of every batch.
//!
//! A [`World`] is the process's place among them and what they do in common: averages, gathered
//! rows, rows in another order. In a world of one all of it does nothing. Every process does the
//! same in the same order; what only the first does (writing files, reporting) needs no other.
//!
//! Nothing here knows the method. How a collective that will never end is told from a slow one is
//! [`watch`]'s.

mod buckets;
mod launch;
pub mod watch;

use std::env;
use std::io;
use std::mem::ManuallyDrop;
use std::net::UdpSocket;
use std::time::Duration;

use tch::Tensor;

use crate::native::NativeError;
use crate::native::process_group::{Group, Pending, Reach, Rows, Store, StoreAddress};
use watch::{Gate, Loss, Watch};

pub use crate::native::process_group::Place;
pub use launch::{Launch, LaunchError, is_follower};

/// How long processes wait for each other to start.
const START: Duration = Duration::from_secs(300);

/// How long a collective may take while all processes are alive: the first of them may be writing a
/// checkpoint meanwhile.
const COLLECTIVE: Duration = Duration::from_secs(1800);

/// Time between two looks at whether a process is lost, while a collective is waited for.
const LOOK: Duration = Duration::from_millis(100);

/// Name of the network interface to use, as PyTorch's.
const INTERFACE: &str = "GLOO_SOCKET_IFNAME";

/// This process among those that train together.
#[derive(Debug)]
pub struct World {
    place: Place,
    links: Option<Links>,
}

/// Connections to the others.
#[derive(Debug)]
struct Links {
    watch: Watch,
    /// Dropping it waits for its collectives, which is forever if another process is lost.
    group: ManuallyDrop<Group>,
}

/// What keeps processes from training together.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// Process 0 cannot be reached, or cannot open its port.
    #[error("cannot {doing} {host}:{port}, which MASTER_ADDR and MASTER_PORT name")]
    Store {
        /// `open the store at` or `reach the store at`.
        doing: &'static str,
        /// Process 0's machine.
        host: String,
        /// The port.
        port: u16,
        /// What libtorch said.
        source: NativeError,
    },
    /// Some processes never started.
    #[error("of {size} ranks, {missing} did not come within {} s", START.as_secs())]
    Missing {
        /// How many there should be.
        size: usize,
        /// Their numbers.
        missing: String,
    },
    /// They see each other at the store but cannot connect.
    #[error(
        "the ranks cannot connect with each other; {INTERFACE} names the network interface to use if this machine \
         has several"
    )]
    Connect(#[source] NativeError),
    /// They cannot connect to process 0's watch.
    #[error("cannot connect to rank 0's watch over the others, on a port of its own choice at {host}")]
    Watch {
        /// Process 0's machine.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process is lost.
    #[error("{0}; the run has stopped, go on from its last checkpoint with --resume")]
    Lost(Loss),
    /// libtorch refused.
    #[error(transparent)]
    Native(#[from] NativeError),
}

impl World {
    /// The world of a process that trains alone.
    pub fn alone() -> Self {
        Self { place: Place { rank: 0, size: 1 }, links: None }
    }

    /// Meets the other processes of a launch. One that gives no sign of life for `patience` counts
    /// as lost from then on.
    ///
    /// # Errors
    /// If they do not all come, or cannot connect with each other.
    pub fn connect(launch: &Launch, patience: Duration) -> Result<Self, WorldError> {
        let (place, host) = (launch.place, &launch.master_host);
        let open = place.rank == 0 && !launch.launchers_store;
        let prefix = format!("densecl/{}", launch.restarts);
        let address = StoreAddress { host: host.clone(), port: launch.master_port, prefix };
        let store = Store::connect(&address, open, START).map_err(|source| WorldError::Store {
            doing: if open { "open the store at" } else { "reach the store at" },
            host: host.clone(),
            port: launch.master_port,
            source,
        })?;
        let missing = store.meet(place, START).map_err(WorldError::Connect)?;
        if !missing.is_empty() {
            let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(WorldError::Missing { size: place.size, missing });
        }
        let reach = reach(host, launch.master_port);
        let group = Group::gloo(&store, place, &reach, [START, COLLECTIVE]).map_err(WorldError::Connect)?;
        let watch_failed = |source| WorldError::Watch { host: host.clone(), source };
        let watch = watch_over(&group, place, host, patience)?.map_err(watch_failed)?;
        Ok(Self { place, links: Some(Links { watch, group: ManuallyDrop::new(group) }) })
    }

    /// This process's place.
    pub fn place(&self) -> Place {
        self.place
    }

    /// Whether this is the process that writes and reports.
    pub fn is_first(&self) -> bool {
        self.place.rank == 0
    }

    /// Replaces each tensor by the mean of all processes' tensors.
    ///
    /// # Errors
    /// If a process is lost, or libtorch refuses.
    pub fn average(&self, tensors: &[Tensor]) -> Result<(), WorldError> {
        let Some(links) = &self.links else { return Ok(()) };
        tch::no_grad(|| {
            let mut under_way = Vec::new();
            for bucket in buckets::fill(tensors, buckets::BYTES) {
                let flat = bucket.flatten();
                under_way.push((bucket, links.group.sum(&flat)?, flat));
            }
            for (bucket, pending, flat) in under_way {
                links.wait(&pending)?;
                bucket.put_back(&(flat / self.place.size as f64));
            }
            Ok(())
        })
    }

    /// All processes' rows, `[n, …]` each → `[size·n, …]`, those of process 0 first.
    ///
    /// # Errors
    /// If a process is lost, or libtorch refuses.
    pub fn gather(&self, rows: &Tensor) -> Result<Tensor, WorldError> {
        let Some(links) = &self.links else { return Ok(rows.shallow_clone()) };
        let mut size = rows.size();
        size[0] *= self.place.size as i64;
        let all = Tensor::empty(size, (rows.kind(), rows.device()));
        links.wait(&links.group.gather(&all, &rows.contiguous())?)?;
        Ok(all)
    }

    /// This process's share of all rows in another order: with `[n, …]` rows of each process, one
    /// process after the other, row i of the result of all is row `order[i]`.
    ///
    /// Only what moves between two processes goes through the network.
    ///
    /// # Errors
    /// If a process is lost, or libtorch refuses.
    pub fn reorder(&self, rows: &Tensor, order: &[i64]) -> Result<Tensor, WorldError> {
        let index = |numbers: &[i64]| Tensor::from_slice(numbers).to_device(rows.device());
        let Some(links) = &self.links else { return Ok(rows.index_select(0, &index(order))) };
        let moves = Moves::of(self.place, order);
        let sent = rows.index_select(0, &index(&moves.sent)).contiguous();
        let received = sent.empty_like();
        links.wait(&links.group.exchange(
            Rows { tensor: &received, counts: &moves.received_counts },
            Rows { tensor: &sent, counts: &moves.sent_counts },
        )?)?;
        Ok(received.index_select(0, &index(&moves.arrived)))
    }

    /// Sums of all processes' numbers.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn sums<const N: usize>(&self, numbers: [i64; N]) -> Result<[i64; N], WorldError> {
        let Some(links) = &self.links else { return Ok(numbers) };
        let tensor = Tensor::from_slice(&numbers);
        links.wait(&links.group.sum(&tensor)?)?;
        let mut sums = [0; N];
        tensor.copy_data(&mut sums, N);
        Ok(sums)
    }

    /// The processes at which something is so.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn which(&self, here: bool) -> Result<Vec<usize>, WorldError> {
        let all = self.gather(&Tensor::from_slice(&[i64::from(here)]))?;
        Ok((0..self.place.size).filter(|&rank| all.int64_value(&[rank as i64]) != 0).collect())
    }

    /// Ends the common work with what came out of it: waits for the others to be done too, or tells
    /// them why this process cannot go on.
    ///
    /// # Errors
    /// The outcome's own, or that of another process that has failed meanwhile.
    pub fn conclude<T>(self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let Place { rank, size } = self.place;
        let together = outcome.and_then(|value| self.sums([1]).map(|_| value).map_err(Into::into));
        let Some(Links { watch, group }) = self.links else { return together };
        match &together {
            Ok(_) => {
                watch.finish();
                drop(ManuallyDrop::into_inner(group));
            }
            Err(error) => watch.fail(&format!("{error:#}")),
        }
        together.map_err(|error| error.context(format!("rank {rank} of {size} stops")))
    }
}

impl Links {
    fn wait(&self, pending: &Pending) -> Result<(), WorldError> {
        loop {
            match pending.wait(LOOK) {
                Ok(true) => return Ok(()),
                Ok(false) => self.watch.loss().map_or(Ok(()), |loss| Err(WorldError::Lost(loss)))?,
                Err(error) => return Err(self.watch.explain().map_or(WorldError::Native(error), WorldError::Lost)),
            }
        }
    }
}

/// What a process sends and gets so that rows come in another order.
#[derive(Debug, PartialEq, Eq)]
struct Moves {
    /// Own rows in the order in which they are sent.
    sent: Vec<i64>,
    /// How many of them go to each process.
    sent_counts: Vec<i64>,
    /// How many come from each process.
    received_counts: Vec<i64>,
    /// For each row of the result, which of the received ones it is.
    arrived: Vec<i64>,
}

impl Moves {
    fn of(Place { rank, size }: Place, order: &[i64]) -> Self {
        let share = order.len() / size;
        let owner = |row: i64| row as usize / share;
        let (mut sent, mut sent_counts) = (Vec::new(), Vec::new());
        for wanted in order.chunks(share) {
            let before = sent.len();
            sent.extend(wanted.iter().filter(|&&row| owner(row) == rank).map(|row| row - (rank * share) as i64));
            sent_counts.push((sent.len() - before) as i64);
        }
        let mine = &order[rank * share..(rank + 1) * share];
        let from = |peer: usize| (0..share).filter(move |&i| owner(mine[i]) == peer);
        let received_counts = (0..size).map(|peer| from(peer).count() as i64).collect();
        let mut arrived = vec![0; share];
        for (slot, place) in (0..).zip((0..size).flat_map(from)) {
            arrived[place] = slot;
        }
        Self { sent, sent_counts, received_counts, arrived }
    }
}

/// How the others reach this machine: where it reaches process 0 from.
fn reach(host: &str, port: u16) -> Reach {
    if let Ok(name) = env::var(INTERFACE) {
        return Reach::Interface(name);
    }
    let any = ["0.0.0.0:0", "[::]:0"];
    let local = |any| {
        // Nothing is sent: the system only says which of its addresses it would send from.
        let socket = UdpSocket::bind(any)?;
        socket.connect((host, port))?;
        socket.local_addr()
    };
    let address = any.into_iter().find_map(|any| local(any).ok());
    Reach::Address(address.map_or_else(|| "localhost".to_owned(), |address| address.ip().to_string()))
}

/// Opens the watch at process 0, and tells the others where it is.
fn watch_over(group: &Group, place: Place, host: &str, patience: Duration) -> Result<io::Result<Watch>, WorldError> {
    let gate = (place.rank == 0).then(Gate::open);
    let port = gate.as_ref().map_or(0, |gate| gate.as_ref().ok().and_then(|gate| gate.port().ok()).unwrap_or(0));
    let ports = Tensor::from_slice(&[i64::from(port)]);
    let pending = group.sum(&ports)?;
    while !pending.wait(LOOK)? {}
    let port = ports.int64_value(&[0]) as u16;
    Ok(match gate {
        Some(gate) => gate.and_then(|gate| gate.admit(place.size, patience)),
        None => Watch::join(place.rank, (host, port), patience),
    })
}
