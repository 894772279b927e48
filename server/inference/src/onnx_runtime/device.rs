//! The devices a model can run on.

use std::str::FromStr;

use ort::ep::{self, ExecutionProvider, ExecutionProviderDispatch};

use crate::backend::Provider;

/// Devices that a user asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// CUDA if it can be used, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA devices by their numbers, at least one; an error if one of them cannot be used.
    Cuda(Vec<u32>),
}

/// The text names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device: use auto, cpu, cuda, cuda:N or cuda:N,M,…")]
pub struct DeviceParseError(String);

impl FromStr for Device {
    type Err = DeviceParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(vec![0])),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|numbers| numbers.split(',').map(device_number).collect::<Option<Vec<_>>>())
                .filter(|numbers| (1..numbers.len()).all(|place| !numbers[..place].contains(&numbers[place])))
                .map(Self::Cuda)
                .ok_or_else(|| DeviceParseError(text.to_owned())),
        }
    }
}

/// CUDA takes the number as a signed one.
fn device_number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|&number| i32::try_from(number).is_ok())
}

impl Provider {
    /// The sets of providers to try for `device`, best first. Only a failure of the last set is an error.
    pub(super) fn candidates(device: &Device) -> Vec<Vec<Self>> {
        match device {
            Device::Auto if ep::CUDA::is_available().unwrap_or(false) => vec![vec![Self::Cuda(0)], vec![Self::Cpu]],
            Device::Auto | Device::Cpu => vec![vec![Self::Cpu]],
            Device::Cuda(numbers) => vec![numbers.iter().copied().map(Self::Cuda).collect()],
        }
    }

    /// The provider for ONNX Runtime. One that cannot start is an error; it never falls back to the CPU.
    pub(super) fn dispatch(self) -> ExecutionProviderDispatch {
        match self {
            Self::Cpu => ep::CPU::default().with_arena_allocator(true).build(),
            Self::Cuda(number) => {
                // TF32 keeps ten bits of mantissa; a CUDA server must answer as a CPU one does.
                let device_id = i32::try_from(number).unwrap_or(i32::MAX);
                ep::CUDA::default().with_device_id(device_id).with_tf32(false).build()
            }
        }
        .error_on_failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_devices() {
        let read = |text: &str| text.parse::<Device>();
        assert_eq!(read("auto"), Ok(Device::Auto));
        assert_eq!(read("cpu"), Ok(Device::Cpu));
        assert_eq!(read("cuda"), Ok(Device::Cuda(vec![0])));
        assert_eq!(read("cuda:3"), Ok(Device::Cuda(vec![3])));
        assert_eq!(read("cuda:2,0"), Ok(Device::Cuda(vec![2, 0])));
        for wrong in ["", "gpu", "cuda:", "cuda:-1", "cuda:4294967295", "CPU", "cuda:0,", "cuda:0,0", "cuda:0,x"] {
            assert_eq!(read(wrong), Err(DeviceParseError(wrong.to_owned())), "{wrong}");
        }
    }
}
