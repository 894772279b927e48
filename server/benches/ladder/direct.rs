//! The rungs without a server: engines on threads of their own.

use std::thread;
use std::time::{Duration, Instant};

use densecl_inference::backend::{ImageBatch, LayerOutput, Load};
use densecl_inference::onnx_runtime::OnnxRuntimeBackend;
use densecl_models::geometry::inference_size;
use densecl_vision::features::{Dtype, FeatureMap, Layout, encode_npy};
use densecl_vision::image::{DecodeLimits, RgbImage, decode_resized};

use crate::Task;
use crate::report::Sample;

const BATCHES: [usize; 5] = [1, 2, 4, 8, 16];

/// Engines configured as in the server.
pub(crate) struct Direct {
    engines: Vec<OnnxRuntimeBackend>,
    task: Task,
}

impl Direct {
    pub(crate) fn start(task: &Task) -> anyhow::Result<Self> {
        Ok(Self { engines: OnnxRuntimeBackend::start_all(&task.config.engine)?, task: task.clone() })
    }

    /// Finds the batch size with the most images per second in the bare loop.
    pub(crate) fn best_batch(&mut self, time: Duration) -> anyhow::Result<usize> {
        let mut best = (0.0, 1);
        for batch in BATCHES {
            self.bare(batch, Duration::ZERO)?;
            let speed = self.bare(batch, time / 2)?.per_second;
            if speed > best.0 {
                best = (speed, batch);
            }
        }
        Ok(best.1)
    }

    /// Measures model runs only, on prepared inputs.
    pub(crate) fn bare(&mut self, batch: usize, time: Duration) -> anyhow::Result<Sample> {
        let inputs: Vec<RgbImage> = (0..batch).map(|index| input(&self.task, index)).collect::<anyhow::Result<_>>()?;
        self.all(time, |engine, task, _| {
            let images: Vec<&[u8]> = inputs.iter().map(|input| input.as_raw().as_slice()).collect();
            engine.run(&task.model, &task.layers, image_batch(&inputs[0], &images), Load::Busy)?;
            Ok(batch)
        })
    }

    /// Measures the work from the file to the reply, on all engines concurrently.
    pub(crate) fn whole(&mut self, time: Duration) -> anyhow::Result<Sample> {
        self.all(time, |engine, task, index| reply(engine, task, index, Load::Busy).map(|_| 1))
    }

    /// Measures the work from the file to the reply, one image at a time with all threads.
    pub(crate) fn alone(&mut self, time: Duration) -> anyhow::Result<Sample> {
        let Self { engines, task } = self;
        run_for(time, |index| reply(&mut engines[0], task, index, Load::Idle).map(|_| 1))
    }

    /// Runs `work` on all engines concurrently.
    fn all(
        &mut self,
        time: Duration,
        work: impl Fn(&mut OnnxRuntimeBackend, &Task, usize) -> anyhow::Result<usize> + Sync,
    ) -> anyhow::Result<Sample> {
        let Self { engines, task } = self;
        let (task, work) = (&*task, &work);
        let samples: Vec<anyhow::Result<Sample>> = thread::scope(|scope| {
            let threads: Vec<_> = engines
                .iter_mut()
                .map(|engine| scope.spawn(move || run_for(time, |index| work(engine, task, index))))
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("the loop does not panic")).collect()
        });
        Ok(Sample::combined(samples.into_iter().collect::<anyhow::Result<Vec<_>>>()?))
    }
}

/// Calls `work`, which returns its number of images, until the time is over, but at least once.
fn run_for(time: Duration, mut work: impl FnMut(usize) -> anyhow::Result<usize>) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let (mut images, mut latencies) = (0, Vec::new());
    loop {
        let start = Instant::now();
        images += work(latencies.len())?;
        latencies.push(start.elapsed());
        if begun.elapsed() >= time {
            return Ok(Sample::new(images, begun.elapsed(), latencies));
        }
    }
}

fn image_batch<'a>(first: &RgbImage, images: &'a [&'a [u8]]) -> ImageBatch<'a> {
    ImageBatch { height: first.height() as usize, width: first.width() as usize, images }
}

fn input(task: &Task, index: usize) -> anyhow::Result<RgbImage> {
    let limits = DecodeLimits { max_pixels: task.config.limits.max_pixels };
    Ok(decode_resized(task.inputs.file(index), &limits, |size| inference_size(size, task.side_px))?.pixels)
}

fn reply(engine: &mut OnnxRuntimeBackend, task: &Task, index: usize, load: Load) -> anyhow::Result<Vec<u8>> {
    let input = input(task, index)?;
    let outputs = engine.run(&task.model, &task.layers, image_batch(&input, &[input.as_raw()]), load)?;
    let mut file = Vec::new();
    for LayerOutput { channels, height, width, data } in outputs.into_iter().flatten() {
        let map = FeatureMap::new(channels, height, width, data)?.into_normalized();
        file = encode_npy(map.view(Layout::Chw), Dtype::Float32);
    }
    Ok(file)
}
