//! How many engines there are, and with how many threads each: the choice that decides between
//! throughput and latency on a CPU.
//!
//! Splitting one convolution among threads costs more than giving every thread an image of its
//! own: on two cores two engines with one thread each do 5 to 10 % more images per second than one
//! engine with two threads at any batch size (ResNet-18, 224 and 512 px; `make bench-server`
//! measures it). But an image that comes alone is then twice as long under way. So on a CPU there
//! is an engine for every thread, and a request that finds the machine idle runs on all of them
//! ([`super::Load::Idle`]). On a GPU two engines take turns: one copies while the other computes.

use super::{EngineOptions, Provider};

/// Every engine on a CPU holds weights of its own. With more threads than this each engine gets
/// several, instead of there being more engines.
const MAX_CPU_ENGINES: usize = 8;
const ENGINES_PER_GPU: usize = 2;

/// One engine's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// Index of its device.
    pub device: usize,
    /// Threads that its runs use.
    pub threads: usize,
}

/// The engines on `providers`; at least one if there is a provider.
pub fn posts(providers: &[Provider], options: &EngineOptions) -> Vec<Post> {
    let on_device = |(device, provider): (usize, &Provider)| -> Vec<Post> {
        match provider {
            Provider::Cpu => {
                let threads = options.threads.max(1);
                let count = options.engines.unwrap_or(threads.min(MAX_CPU_ENGINES)).clamp(1, threads);
                let share = |index: usize| threads / count + usize::from(index < threads % count);
                (0..count).map(|index| Post { device, threads: share(index) }).collect()
            }
            Provider::Cuda(_) => {
                vec![Post { device, threads: 1 }; options.engines.unwrap_or(ENGINES_PER_GPU).max(1)]
            }
        }
    };
    providers.iter().enumerate().flat_map(on_device).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Device, Precision};

    fn threads(threads: usize, engines: Option<usize>) -> Vec<usize> {
        let options =
            EngineOptions { library: None, device: Device::Cpu, threads, engines, precision: Precision::Float32 };
        posts(&[Provider::Cpu], &options).iter().map(|post| post.threads).collect()
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
        let devices: Vec<usize> =
            posts(&[Provider::Cuda(0), Provider::Cuda(3)], &options).iter().map(|post| post.device).collect();
        assert_eq!(devices, [0, 0, 1, 1]);
    }
}
