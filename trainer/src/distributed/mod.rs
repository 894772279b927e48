//! Processes that train one model together, each on its share of every batch.
//!
//! A [`World`] holds the rank of the process and the collectives: averages, gathered rows, rows in
//! another order. In a world of one they do nothing. Every process calls the same collectives in the
//! same order; only the first process writes files and reports.
//!
//! This module does not depend on the method. [`watch`] tells a collective that will never end from
//! a slow one.

mod buckets;
mod launch;
pub mod peer_link;
mod rendezvous;
mod row_exchange;
pub mod watch;

use std::io;
use std::mem;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Tensor};

use crate::native::NativeError;
use crate::native::process_group::{Group, Pending, Rows};
use peer_link::LostRank;
use row_exchange::RowExchange;
use watch::PeerWatch;

pub use crate::native::process_group::ProcessRank;
pub use launch::{Launch, LaunchError, is_secondary_rank};

/// Longest time that processes wait for each other to start.
const START_TIMEOUT: Duration = Duration::from_mins(5);

/// Time between two checks for a lost process while a collective runs.
const LOSS_CHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Environment variable with the network interface to use, the same as PyTorch's.
const INTERFACE_VARIABLE: &str = "GLOO_SOCKET_IFNAME";

/// This process among those that train together.
#[derive(Debug)]
pub struct World {
    process: ProcessRank,
    links: Option<Links>,
}

/// Connections to the others.
#[derive(Debug)]
struct Links {
    watch: PeerWatch,
    /// For tensors on the CPU.
    cpu: Rc<Group>,
    /// For those on a GPU, if the processes train on GPUs.
    gpu: Option<Rc<Group>>,
}

impl Drop for Links {
    fn drop(&mut self) {
        if !self.watch.is_finished() {
            // Dropping a group would wait for collectives that another process has left. Its threads
            // sleep until this process ends.
            mem::forget((Rc::clone(&self.cpu), self.gpu.clone()));
        }
    }
}

/// A failure of the connection between the processes.
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
        /// The error of libtorch.
        source: NativeError,
    },
    /// Some processes never started.
    #[error("of {size} ranks, {missing} did not come within {} s", START_TIMEOUT.as_secs())]
    Missing {
        /// The expected number.
        size: usize,
        /// The ranks that are missing.
        missing: String,
    },
    /// They have met at the store but cannot connect.
    #[error(
        "the ranks cannot connect with each other; {INTERFACE_VARIABLE} names the network interface to use if this machine \
         has several"
    )]
    Connect(#[source] NativeError),
    /// They cannot connect to the watch of process 0.
    #[error("cannot connect to rank 0's watch over the others, on a port of its own choice at {host}")]
    Watch {
        /// Process 0's machine.
        host: String,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process is lost.
    #[error("{0}; the run has stopped, go on from its last checkpoint with --resume")]
    Lost(LostRank),
    /// An error of libtorch.
    #[error(transparent)]
    Native(#[from] NativeError),
}

impl World {
    /// The world of a process that trains alone.
    pub fn alone() -> Self {
        Self { process: ProcessRank { rank: 0, size: 1 }, links: None }
    }

    /// Connects to the other processes of a launch, which train on devices of the same kind. One
    /// that sends no heartbeat for `timeout` counts as lost.
    ///
    /// # Errors
    /// If they do not all come, or cannot connect with each other.
    pub fn connect(launch: &Launch, device: Device, timeout: Duration) -> Result<Self, WorldError> {
        Ok(Self { process: launch.process, links: Some(rendezvous::connect(launch, device, timeout)?) })
    }

    /// Rank of this process and number of processes.
    pub fn process(&self) -> ProcessRank {
        self.process
    }

    /// Rank of this process, counted from 0.
    pub fn rank(&self) -> usize {
        self.process.rank
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.process.size
    }

    /// Returns `true` for process 0, which writes files and reports.
    pub fn is_first(&self) -> bool {
        self.process.rank == 0
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
                under_way.push((bucket, links.group(&flat).sum(&flat)?, flat));
            }
            for (bucket, pending, flat) in under_way {
                links.wait(&pending)?;
                bucket.put_back(&(flat / self.process.size as f64));
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
        size[0] *= self.process.size as i64;
        let all = Tensor::empty(size, (rows.kind(), rows.device()));
        links.wait(&links.group(&all).gather(&all, &rows.contiguous())?)?;
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
        let exchange = RowExchange::new(self.process, order);
        let sent = rows.index_select(0, &index(&exchange.sent)).contiguous();
        let received = sent.empty_like();
        links.wait(&links.group(&sent).exchange(
            Rows { tensor: &received, counts: &exchange.received_counts },
            Rows { tensor: &sent, counts: &exchange.sent_counts },
        )?)?;
        Ok(received.index_select(0, &index(&exchange.arrived)))
    }

    /// Sums of all processes' numbers.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn sums<const N: usize>(&self, numbers: [i64; N]) -> Result<[i64; N], WorldError> {
        let Some(links) = &self.links else { return Ok(numbers) };
        let tensor = Tensor::from_slice(&numbers);
        links.wait(&links.group(&tensor).sum(&tensor)?)?;
        let mut sums = [0; N];
        tensor.copy_data(&mut sums, N);
        Ok(sums)
    }

    /// The ranks of the processes that pass `true`.
    ///
    /// # Errors
    /// If a process is lost.
    pub fn which(&self, here: bool) -> Result<Vec<usize>, WorldError> {
        let all = self.gather(&Tensor::from_slice(&[i64::from(here)]))?;
        Ok((0..self.process.size).filter(|&rank| all.int64_value(&[rank as i64]) != 0).collect())
    }

    /// Ends the common work: waits until the others have finished too, or tells them why this process
    /// has failed.
    ///
    /// # Errors
    /// Returns the error of the outcome, or that of another process that has failed meanwhile.
    pub fn conclude<T>(&self, outcome: anyhow::Result<T>) -> anyhow::Result<T> {
        let ProcessRank { rank, size } = self.process;
        let Some(Links { watch, .. }) = &self.links else { return outcome };
        let together = outcome.and_then(|value| self.sums([1]).map(|_| value).map_err(Into::into));
        match &together {
            Ok(_) => watch.finish(),
            Err(error) => watch.fail(&format!("{error:#}")),
        }
        together.map_err(|error| error.context(format!("rank {rank} of {size} stops")))
    }
}

impl Links {
    /// The group for the device of a tensor.
    fn group(&self, tensor: &Tensor) -> &Group {
        match &self.gpu {
            Some(gpu) if tensor.device().is_cuda() => gpu,
            _ => &self.cpu,
        }
    }

    fn wait(&self, pending: &Pending) -> Result<(), WorldError> {
        loop {
            match pending.wait(LOSS_CHECK_INTERVAL) {
                Ok(true) => return Ok(()),
                Ok(false) => self.watch.loss().map_or(Ok(()), |loss| Err(WorldError::Lost(loss)))?,
                Err(error) => {
                    return Err(self.watch.wait_for_loss().map_or(WorldError::Native(error), WorldError::Lost));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use tch::Kind;

    use super::*;

    /// Runs `body` in several processes, here threads, and returns their results.
    fn at_each<T: Send + 'static>(size: usize, body: fn(World) -> T) -> Vec<T> {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let start = |rank| {
            let launch = Launch {
                process: ProcessRank { rank, size },
                local_rank: rank,
                master_host: "127.0.0.1".to_owned(),
                master_port: free,
                launchers_store: false,
                restarts: "0".to_owned(),
            };
            thread::spawn(move || body(World::connect(&launch, Device::Cpu, Duration::from_secs(5)).unwrap()))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn averages_rows_and_sums_are_those_of_all() {
        let found = at_each(3, |world| {
            let rank = world.rank() as i64;
            let mine = (Tensor::arange(4, (Kind::Double, Device::Cpu)) + rank * 4).view([2, 2]);
            let averaged = [mine.copy(), Tensor::from(rank as f32)];
            world.average(&averaged).unwrap();
            let gathered = world.gather(&mine).unwrap();
            let reordered = world.reorder(&mine, &[5, 0, 3, 1, 4, 2]).unwrap();
            let sums = world.sums([rank, 1]).unwrap();
            let which = world.which(rank == 1).unwrap();
            world.conclude(Ok(())).unwrap();
            (averaged.map(|tensor| values(&tensor)), values(&gathered), values(&reordered), sums, which)
        });
        let row = |i: i32| [f64::from(2 * i), f64::from(2 * i + 1)];
        for (rank, (averaged, gathered, reordered, sums, which)) in found.into_iter().enumerate() {
            assert_eq!(averaged, [vec![4.0, 5.0, 6.0, 7.0], vec![1.0]]);
            assert_eq!(gathered, (0..12).map(f64::from).collect::<Vec<_>>());
            assert_eq!(reordered, [[row(5), row(0)], [row(3), row(1)], [row(4), row(2)]][rank].concat());
            assert_eq!((sums, which), ([3, 3], vec![1]));
        }
    }

    #[test]
    fn the_failure_of_one_ends_all() {
        let errors = at_each(3, |world| {
            let outcome = match world.rank() {
                2 => Err(anyhow::anyhow!("no space left")),
                // The others wait for it, in vain.
                _ => world.sums([1]).map_err(Into::into),
            };
            format!("{:#}", world.conclude(outcome).unwrap_err())
        });
        assert_eq!(errors[2], "rank 2 of 3 stops: no space left");
        for error in &errors[..2] {
            assert!(error.contains("stops: rank 2 has failed: no space left; the run has stopped"), "{error}");
        }
    }

    #[test]
    fn a_world_of_one_changes_nothing() {
        let world = World::alone();
        let rows = Tensor::arange(3, (Kind::Double, Device::Cpu));
        world.average(&[rows.shallow_clone()]).unwrap();
        assert_eq!(values(&world.gather(&rows).unwrap()), [0.0, 1.0, 2.0]);
        assert_eq!(values(&world.reorder(&rows, &[2, 0, 1]).unwrap()), [2.0, 0.0, 1.0]);
        assert_eq!((world.sums([7]).unwrap(), world.which(true).unwrap()), ([7], vec![0]));
        assert!(world.is_first());
        world.conclude(Ok(())).unwrap();
    }
}
