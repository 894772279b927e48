//! Flags of the commands that several processes can run together.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tch::Device;

use crate::accelerator::DeviceChoice;
use crate::distributed::{Launch, World};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WorldArgs {
    /// Seconds without a heartbeat after which another rank counts as lost, if a launcher such as
    /// torchrun has started several.
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    distributed_timeout: u64,
}

impl WorldArgs {
    /// Connects to the other processes of the environment, each on its own device.
    pub(super) fn connect(self, device: DeviceChoice) -> Result<(World, Device)> {
        let Some(launch) = Launch::from_env()? else {
            return Ok((World::alone(), device.resolve()?));
        };
        let device = device.resolve_for(launch.local_rank)?;
        let world = World::connect(&launch, device, Duration::from_secs(self.distributed_timeout))?;
        Ok((world, device))
    }
}
