//! Choice of the device, and the CUDA half of libtorch.
//!
//! The trainer links only the CPU half of libtorch, so that a machine without a GPU needs no CUDA
//! libraries. The other half registers itself when it is loaded, which is done here, once.

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tch::Device;

/// Name of the library, looked for where the loader looks.
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Device that the user chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// A GPU if there is one: the first, or the one of this process's `LOCAL_RANK`.
    Auto,
    /// The CPU.
    Cpu,
    /// That GPU; an error if it cannot be used.
    Cuda,
}

impl DeviceChoice {
    /// Device of the only process on its machine.
    ///
    /// # Errors
    /// If [`DeviceChoice::Cuda`] cannot be used.
    pub fn resolve(self) -> Result<Device> {
        self.resolve_for(0)
    }

    /// Device of the process with this rank on its machine.
    ///
    /// # Errors
    /// The errors of [`DeviceChoice::resolve`].
    pub fn resolve_for(self, local_rank: usize) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            Self::Auto => Ok(gpu(local_rank).unwrap_or(Device::Cpu)),
            Self::Cuda => gpu(local_rank).context("--device cuda"),
        }
    }
}

fn gpu(number: usize) -> Result<Device> {
    load_cuda().with_context(|| format!("cannot load {CUDA_LIBRARY}"))?;
    ensure!(tch::Cuda::is_available(), "libtorch finds no usable GPU");
    let count = tch::Cuda::device_count();
    ensure!((number as i64) < count, "LOCAL_RANK is {number}, but there are only {count} GPUs on this machine");
    tch::Cuda::cudnn_set_benchmark(true);
    Ok(Device::Cuda(number))
}

/// Loads the CUDA half of libtorch for the rest of the process.
#[expect(unsafe_code, reason = "loading a library runs its initialisers")]
fn load_cuda() -> Result<(), libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    // SAFETY: the initialisers are libtorch's own: they register CUDA kernels with the CPU half,
    // which is already loaded, and touch nothing of ours. The library is never unloaded.
    let library = unsafe { Library::open(Some(CUDA_LIBRARY), RTLD_NOW | RTLD_GLOBAL) }?;
    std::mem::forget(library);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_cannot_be_used_is_an_error_and_auto_falls_back() {
        assert_eq!(DeviceChoice::Cpu.resolve().unwrap(), Device::Cpu);
        match (gpu(0), DeviceChoice::Cuda.resolve()) {
            (Ok(gpu), Ok(chosen)) => assert_eq!(gpu, chosen),
            (Err(_), Err(error)) => {
                assert!(format!("{error:#}").contains("--device cuda"), "{error:#}");
                assert_eq!(DeviceChoice::Auto.resolve().unwrap(), Device::Cpu);
            }
            (found, chosen) => panic!("{found:?}, but {chosen:?}"),
        }
    }
}
