//! GPU utilisation by `nvidia-smi`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use serde::Serialize;

/// Reads the utilisation while a benchmark runs.
pub(crate) struct GpuMonitor {
    process: Child,
    readings: Arc<Mutex<Vec<Reading>>>,
}

#[derive(Clone, Copy)]
struct Reading {
    busy_percent: f64,
    memory_mib: f64,
}

/// Utilisation during a measurement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct GpuUse {
    /// Share of the time in which a kernel ran, from 0 to 1.
    pub(crate) busy: f64,
    pub(crate) most_memory_mib: f64,
}

impl GpuMonitor {
    /// Starts to read; `None` if there is no `nvidia-smi`.
    pub(crate) fn start() -> Option<Self> {
        let mut process = Command::new("nvidia-smi")
            .args(["--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits", "-lms", "100"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let output = BufReader::new(process.stdout.take()?);
        let readings: Arc<Mutex<Vec<Reading>>> = Arc::default();
        let sink = Arc::clone(&readings);
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(reading) = Reading::parse(&line) {
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(reading);
                }
            }
        });
        Some(Self { process, readings })
    }

    /// Stops, and returns the mean utilisation since the start.
    pub(crate) fn stop(mut self) -> Option<GpuUse> {
        // Fails if the program has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        let count = readings.len();
        let busy = readings.iter().map(|reading| reading.busy_percent).sum::<f64>() / 100.0 / count.max(1) as f64;
        let most_memory_mib = readings.iter().map(|reading| reading.memory_mib).fold(0.0, f64::max);
        (count > 0).then_some(GpuUse { busy, most_memory_mib })
    }
}

impl Reading {
    fn parse(line: &str) -> Option<Self> {
        let (busy, memory) = line.split_once(',')?;
        Some(Self { busy_percent: busy.trim().parse().ok()?, memory_mib: memory.trim().parse().ok()? })
    }
}
