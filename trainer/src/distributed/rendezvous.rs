//! How the processes of a launch find each other.

use std::env;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::time::Duration;

use tch::{Device, Tensor};

use super::watch::{Gate, Watch};
use super::{INTERFACE, LOOK, Launch, Links, Place, START, WorldError};
use crate::native::process_group::{Group, Reach, Store, StoreAddress};

/// How long a collective may take while all processes are alive: the first of them may be writing a
/// checkpoint meanwhile.
const COLLECTIVE: Duration = Duration::from_mins(30);

/// Connects this process with all others.
pub(super) fn meet(launch: &Launch, device: Device, patience: Duration) -> Result<Links, WorldError> {
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
    let cpu = Group::gloo(&store, place, &reach, [START, COLLECTIVE]).map_err(WorldError::Connect)?;
    let watch_failed = |source| WorldError::Watch { host: host.clone(), source };
    let mut watch = watch_over(&cpu, place, host, patience)?.map_err(watch_failed)?;
    let gpu = match device {
        Device::Cuda(number) => {
            // A collective on a GPU that never ends keeps the whole process.
            watch.end_process_after_loss().map_err(watch_failed)?;
            Some(Group::nccl(&store, place, number, COLLECTIVE).map_err(WorldError::Connect)?)
        }
        _ => None,
    };
    Ok(Links { watch, cpu: Rc::new(cpu), gpu: gpu.map(Rc::new) })
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
