//! The number of engines and the threads of each: the choice between throughput and latency on a CPU.
//!
//! Splitting one convolution among threads costs more than giving every thread an image of its own: on two cores two
//! engines with one thread each do 5 to 10 % more images per second than one engine with two threads at any batch size
//! (ResNet-18, 224 and 512 px; `make bench-server` measures it). But an image that comes alone then takes twice as long.
//! So a CPU has an engine for every thread, and a request that finds the machine idle runs on all threads
//! ([`Load::Idle`](crate::backend::Load)). On a GPU two engines take turns: one copies while the other computes.

use super::EngineOptions;
use crate::backend::Provider;

/// Every engine on a CPU holds weights of its own. With more threads than this each engine gets
/// several, instead of there being more engines.
const MAX_CPU_ENGINES: usize = 8;
const ENGINES_PER_GPU: usize = 2;

/// The device and the threads of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnginePlacement {
    /// Index of its device among the providers.
    pub device: usize,
    /// Threads that its runs use.
    pub threads: usize,
}

/// The engines on `providers`; at least one if there is a provider.
pub fn placements(providers: &[Provider], options: &EngineOptions) -> Vec<EnginePlacement> {
    let on_device = |(device, provider): (usize, &Provider)| -> Vec<EnginePlacement> {
        match provider {
            Provider::Cpu => {
                let threads = options.threads.max(1);
                let count = options.engines.unwrap_or(threads.min(MAX_CPU_ENGINES)).clamp(1, threads);
                let share = |index: usize| threads / count + usize::from(index < threads % count);
                (0..count).map(|index| EnginePlacement { device, threads: share(index) }).collect()
            }
            Provider::Cuda(_) => {
                vec![EnginePlacement { device, threads: 1 }; options.engines.unwrap_or(ENGINES_PER_GPU).max(1)]
            }
        }
    };
    providers.iter().enumerate().flat_map(on_device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx_runtime::{Device, Precision};

    fn threads(threads: usize, engines: Option<usize>) -> Vec<usize> {
        let options =
            EngineOptions { library: None, device: Device::Cpu, threads, engines, precision: Precision::Float32 };
        placements(&[Provider::Cpu], &options).iter().map(|placement| placement.threads).collect()
    }

    #[test]
    fn all_threads_of_a_cpu_are_given_out_once() {
        assert_eq!(threads(1, None), [1]);
        assert_eq!(threads(2, None), [1, 1]);
        assert_eq!(threads(19, None), [3, 3, 3, 2, 2, 2, 2, 2]);
        assert_eq!(threads(4, Some(1)), [4]);
        assert_eq!(threads(2, Some(5)), [1, 1]);
    }

    #[test]
    fn every_gpu_has_engines() {
        let options = EngineOptions {
            library: None,
            device: Device::Auto,
            threads: 16,
            engines: None,
            precision: Precision::Float32,
        };
        let devices: Vec<usize> = placements(&[Provider::Cuda(0), Provider::Cuda(3)], &options)
            .iter()
            .map(|placement| placement.device)
            .collect();
        assert_eq!(devices, [0, 0, 1, 1]);
    }
}
