//! Timing of training steps and of the loader, each without the other.
//!
//! Steps are those of [`Trainer`], augmentation and upload included, on batches that are in
//! memory beforehand. A GPU is synchronised before a clock is read. [`Bench::serve`] takes blocks
//! of steps on demand, so that two programs can be compared in alternation, each idle and warm
//! while the other works: a machine whose speed drifts then slows both.

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::{Context, Result};
use serde::Serialize;
use tch::Device;

use crate::config::{Config, NetworkConfig};
use crate::data::{Batch, Loader};
use crate::distributed::World;
use crate::monitor::peak_memory_bytes;
use crate::pretrain::{Steps, Trainer, loader_options, open_data};

/// Different batches that the steps take in turn.
const BATCHES: usize = 2;

/// A schedule so long that the learning rate stays at its base while steps are timed.
const SCHEDULE_STEPS: u64 = 1_000_000;

/// A run whose steps and loader are timed.
#[derive(Debug)]
pub struct Bench {
    /// Network, views, batch and threads of the loader.
    pub config: Config,
    /// Training device.
    pub device: Device,
    /// The processes that take them together; each times itself.
    pub world: World,
    /// Steps, or batches of the loader, before the clock starts.
    pub warmup: u64,
}

/// Durations of the steps of a block.
#[derive(Debug, Serialize)]
pub struct Timing {
    /// `step` or `loader`.
    pub part: &'static str,
    /// Steps that were timed.
    pub steps: u64,
    /// Images a step, over all processes.
    pub batch: usize,
    /// Median time of a step.
    pub median_seconds: f64,
    /// Mean time of a step.
    pub mean_seconds: f64,
    /// Mean processor time of a step, over all threads: on a shared machine it is more reliable than
    /// elapsed time.
    pub mean_cpu_seconds: Option<f64>,
    /// Images that a step turns into two views each, by the mean.
    pub pairs_per_second: f64,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Peak memory of the process.
    pub peak_resident_bytes: Option<u64>,
}

/// Configuration and machine of a timing.
#[derive(Debug, Serialize)]
struct Setting<'a> {
    program: &'static str,
    device: String,
    ranks: usize,
    threads: i32,
    workers: usize,
    batch: usize,
    view_px: u32,
    network: &'a NetworkConfig,
}

impl Bench {
    /// Times `steps` training steps.
    ///
    /// # Errors
    /// If images cannot be drawn or a step fails.
    pub fn steps(&self, steps: u64) -> Result<Timing> {
        let mut stepping = TimedSteps::start(self)?;
        stepping.block(self.warmup)?;
        stepping.block(steps)
    }

    /// Times `batches` batches of the loader, with the configured number of threads.
    ///
    /// # Errors
    /// If images cannot be drawn.
    pub fn loader(&self, batches: u64) -> Result<Timing> {
        let mut loader = self.start_loader()?;
        // What was drawn ahead before the clock started would come for nothing.
        for _ in 0..self.warmup.max(self.config.data.prefetch as u64 + 1) {
            loader.next_batch()?;
        }
        let clocked = clock(batches, || loader.next_batch().map(drop))?;
        Ok(self.timing("loader", &clocked, None))
    }

    /// Answers each line `run N` of `input` with the timing of N steps, one JSON object a line.
    /// The first line of output has the setting; it is written after the warm-up.
    ///
    /// # Errors
    /// If a line is another, a step fails, or the output is closed.
    pub fn serve(&self, input: impl BufRead, mut output: impl Write) -> Result<()> {
        let mut stepping = TimedSteps::start(self)?;
        stepping.block(self.warmup)?;
        write_line(&mut output, &self.setting())?;
        for line in input.lines() {
            let line = line.context("cannot read a request")?;
            let count = line.strip_prefix("run ").and_then(|count| count.trim().parse().ok());
            let count: u64 = count.with_context(|| format!("`{line}`: expected `run N`"))?;
            write_line(&mut output, &stepping.block(count)?)?;
        }
        Ok(())
    }

    /// The setting and timings as a JSON object.
    ///
    /// # Errors
    /// None that is known: both are plain data.
    pub fn json(&self, timings: &[Timing]) -> Result<String> {
        Ok(serde_json::to_string(&serde_json::json!({ "setting": self.setting(), "timings": timings }))?)
    }

    /// The setting and timings for a reader.
    pub fn text(&self, timings: &[Timing]) -> String {
        let Setting { device, ranks, threads, workers, batch, view_px, network, .. } = self.setting();
        let mut lines = vec![format!(
            "{} at {view_px} px, batch {batch}, on {device}; {ranks} ranks of {threads} threads, {workers} loader threads",
            network.architecture
        )];
        for Timing { part, steps, median_seconds, mean_seconds, pairs_per_second, .. } in timings {
            lines.push(format!(
                "{part:<8}{median_seconds:.4} s median, {mean_seconds:.4} s mean of {steps}; {pairs_per_second:.1} pairs/s"
            ));
        }
        if let Some(bytes) = peak_memory_bytes() {
            lines.push(format!("memory  {:.0} MB resident at most", bytes as f64 / 1e6));
        }
        lines.join("\n")
    }

    fn setting(&self) -> Setting<'_> {
        Setting {
            program: "densecl-trainer",
            device: format!("{:?}", self.device),
            ranks: self.world.size(),
            threads: tch::get_num_threads(),
            workers: self.config.data.workers,
            batch: self.config.optimizer.batch,
            view_px: self.config.data.view_px,
            network: &self.config.network,
        }
    }

    fn start_loader(&self) -> Result<Loader> {
        self.config.check_world(self.world.size())?;
        let (source, steps_per_epoch) = open_data(&self.config)?;
        let options = loader_options(&self.config, self.world.process(), self.device, steps_per_epoch);
        Loader::start(source, options, 0)
    }

    fn timing(&self, part: &'static str, Clocked { seconds, cpu_seconds }: &Clocked, loss: Option<f64>) -> Timing {
        let count = seconds.len() as f64;
        let mean_seconds = seconds.iter().sum::<f64>() / count;
        let batch = self.config.optimizer.batch;
        Timing {
            part,
            steps: seconds.len() as u64,
            batch,
            median_seconds: median(seconds),
            mean_seconds,
            mean_cpu_seconds: cpu_seconds.map(|cpu_seconds| cpu_seconds / count),
            pairs_per_second: batch as f64 / mean_seconds,
            loss,
            peak_resident_bytes: peak_memory_bytes(),
        }
    }
}

/// A trainer with its batches, between two blocks of steps.
struct TimedSteps<'a> {
    bench: &'a Bench,
    trainer: Trainer<'a>,
    batches: Vec<Batch>,
    step: u64,
}

impl<'a> TimedSteps<'a> {
    fn start(bench: &'a Bench) -> Result<Self> {
        let mut loader = bench.start_loader()?;
        let batches = (0..BATCHES).map(|_| loader.next_batch()).collect::<Result<_>>()?;
        let steps = Steps { per_epoch: SCHEDULE_STEPS, total: SCHEDULE_STEPS };
        let trainer = Trainer::new(&bench.config, &bench.world, bench.device, steps)?;
        Ok(Self { bench, trainer, batches, step: 0 })
    }

    fn block(&mut self, steps: u64) -> Result<Timing> {
        let mut loss = None;
        synchronize(self.bench.device);
        let clocked = clock(steps, || {
            let batch = &self.batches[self.step as usize % BATCHES];
            let measures = self.trainer.step(self.step, batch)?;
            synchronize(self.bench.device);
            self.step += 1;
            loss = Some(measures.loss);
            Ok(())
        })?;
        Ok(self.bench.timing("step", &clocked, loss.map(|loss| loss.double_value(&[]))))
    }
}

/// Durations of calls.
struct Clocked {
    /// Duration of each call.
    seconds: Vec<f64>,
    /// On processors, of all calls together.
    cpu_seconds: Option<f64>,
}

fn clock(count: u64, mut call: impl FnMut() -> Result<()>) -> Result<Clocked> {
    let timed = |_| {
        let started = Instant::now();
        call()?;
        Ok(started.elapsed().as_secs_f64())
    };
    let cpu_started = cpu_seconds();
    let seconds = (0..count).map(timed).collect::<Result<_>>()?;
    let cpu_seconds = cpu_started.zip(cpu_seconds()).map(|(started, ended)| ended - started);
    Ok(Clocked { seconds, cpu_seconds })
}

fn synchronize(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// The middle of the values, or the mean of the two in the middle; NaN of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len() / 2, sorted.len() % 2) {
        (0, 0) => f64::NAN,
        (middle, 0) => f64::midpoint(sorted[middle - 1], sorted[middle]),
        (middle, _) => sorted[middle],
    }
}

/// Time that this process has spent on processors, to a hundredth of a second.
fn cpu_seconds() -> Option<f64> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, which is part of the kernel's interface.
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses and may hold spaces; user and system
    // time are the fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields.split_whitespace().skip(11).map_while(|field| field.parse::<f64>().ok());
    Some((times.next()? + times.next()?) / TICKS_PER_SECOND)
}

fn write_line(output: &mut impl Write, value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)?;
    writeln!(output, "{line}").and_then(|()| output.flush()).context("cannot write the timings")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::TINY;

    /// Four pictures of one colour each, and the smallest network.
    fn bench() -> (tempfile::TempDir, Bench) {
        let root = tempfile::tempdir().unwrap();
        for i in 0..4_u8 {
            let picture = image::RgbImage::from_pixel(32, 32, image::Rgb([60 * i, 10, 200]));
            picture.save(root.path().join(format!("{i}.png"))).unwrap();
        }
        let overrides = [
            format!("data.source={}", root.path().display()),
            "contrast.queue_length=4".to_owned(),
            "optimizer.batch=4".to_owned(),
            "data.view_px=32".to_owned(),
            "data.canvas_px=32".to_owned(),
        ];
        let config = Config::parse(TINY, &overrides).unwrap();
        (root, Bench { config, device: Device::Cpu, world: World::alone(), warmup: 1 })
    }

    #[test]
    fn every_request_is_answered_by_the_timing_of_its_steps() {
        let (_root, bench) = bench();
        let mut output = Vec::new();
        bench.serve("run 1\nrun 2\n".as_bytes(), &mut output).unwrap();
        let lines: Vec<serde_json::Value> =
            String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["program"], "densecl-trainer");
        assert_eq!(lines[1]["steps"], 1);
        assert_eq!(lines[2]["steps"], 2);
        assert!(lines[2]["mean_seconds"].as_f64().unwrap() > 0.0);
        assert!(lines[2]["loss"].as_f64().unwrap() > 0.0);
        let error = bench.serve("walk 1\n".as_bytes(), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("run N"), "{error}");
    }

    #[test]
    fn the_loader_is_timed_by_itself() {
        let (_root, bench) = bench();
        let timing = bench.loader(3).unwrap();
        assert_eq!((timing.part, timing.steps, timing.batch), ("loader", 3, 4));
        assert!((timing.pairs_per_second * timing.mean_seconds - 4.0).abs() < 1e-9);
        assert!(timing.loss.is_none());
    }

    #[test]
    fn work_takes_processor_time() {
        let work = || {
            let started = Instant::now();
            while started.elapsed().as_secs_f64() < 0.3 {}
            Ok(())
        };
        assert!(clock(1, work).unwrap().cpu_seconds.unwrap() > 0.0);
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]).to_bits(), 2.0_f64.to_bits());
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]).to_bits(), 2.5_f64.to_bits());
        assert!(median(&[]).is_nan());
    }
}
