//! Connects the processes of a launch with each other.

use std::env;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Tensor};

use super::peer_link::PeerListener;
use super::watch::PeerWatch;
use super::{INTERFACE_VARIABLE, LOSS_CHECK_INTERVAL, Launch, Links, ProcessRank, START_TIMEOUT, WorldError};
use crate::native::process_group::{Group, LocalEndpoint, Store, StoreAddress};

/// Longest time of a collective while all processes are alive: the first of them may be writing a
/// checkpoint meanwhile.
const COLLECTIVE_TIMEOUT: Duration = Duration::from_mins(30);

/// Connects this process with all others.
pub(super) fn connect(launch: &Launch, device: Device, timeout: Duration) -> Result<Links, WorldError> {
    let (process, host) = (launch.process, &launch.master_host);
    let open = process.rank == 0 && !launch.launchers_store;
    let prefix = format!("densecl/{}", launch.restarts);
    let address = StoreAddress { host: host.clone(), port: launch.master_port, prefix };
    let store = Store::connect(&address, open, START_TIMEOUT).map_err(|source| WorldError::Store {
        doing: if open { "open the store at" } else { "reach the store at" },
        host: host.clone(),
        port: launch.master_port,
        source,
    })?;
    let missing = store.meet(process, START_TIMEOUT).map_err(WorldError::Connect)?;
    if !missing.is_empty() {
        let missing = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        return Err(WorldError::Missing { size: process.size, missing });
    }
    let endpoint = local_endpoint(host, launch.master_port);
    let cpu =
        Group::gloo(&store, process, &endpoint, [START_TIMEOUT, COLLECTIVE_TIMEOUT]).map_err(WorldError::Connect)?;
    let watch_failed = |source| WorldError::Watch { host: host.clone(), source };
    let mut watch = start_watch(&cpu, process, host, timeout)?.map_err(watch_failed)?;
    let gpu = match device {
        Device::Cuda(number) => {
            // A collective on a GPU that never ends keeps the process from ending.
            watch.end_process_after_loss().map_err(watch_failed)?;
            Some(Group::nccl(&store, process, number, COLLECTIVE_TIMEOUT).map_err(WorldError::Connect)?)
        }
        _ => None,
    };
    Ok(Links { watch, cpu: Rc::new(cpu), gpu: gpu.map(Rc::new) })
}

/// The endpoint at which the others reach this machine: the address from which it reaches process 0.
fn local_endpoint(host: &str, port: u16) -> LocalEndpoint {
    if let Ok(name) = env::var(INTERFACE_VARIABLE) {
        return LocalEndpoint::Interface(name);
    }
    let any = ["0.0.0.0:0", "[::]:0"];
    let local = |any| {
        // Nothing is sent: the system only chooses the address that it would send from.
        let socket = UdpSocket::bind(any)?;
        socket.connect((host, port))?;
        socket.local_addr()
    };
    let address = any.into_iter().find_map(|any| local(any).ok());
    LocalEndpoint::Address(address.map_or_else(|| "localhost".to_owned(), |address| address.ip().to_string()))
}

/// Binds the watch's port at process 0, sends its number to the others, and connects.
fn start_watch(
    group: &Group,
    process: ProcessRank,
    host: &str,
    timeout: Duration,
) -> Result<io::Result<PeerWatch>, WorldError> {
    let listener = (process.rank == 0).then(PeerListener::bind);
    let bound = listener.as_ref().and_then(|listener| listener.as_ref().ok());
    let port = bound.and_then(|listener| listener.port().ok()).unwrap_or(0);
    let ports = Tensor::from_slice(&[i64::from(port)]);
    let pending = group.sum(&ports)?;
    while !pending.wait(LOSS_CHECK_INTERVAL)? {}
    let port = ports.int64_value(&[0]) as u16;
    Ok(match listener {
        Some(listener) => listener.and_then(|listener| PeerWatch::accept(listener, process.size, timeout)),
        None => PeerWatch::connect(process.rank, (host, port), timeout),
    })
}
