//! Report of the measurements, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::Serialize;

use crate::Task;
use crate::gpu::GpuUse;
use crate::open_loop::OpenSample;

/// Measured configurations, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rung {
    Engine,
    Python,
    Direct,
    DirectAlone,
    Router,
    Http(usize),
}

impl Rung {
    fn name(self) -> String {
        match self {
            Self::Engine => "(a) engine".to_owned(),
            Self::Python => "    Python".to_owned(),
            Self::Direct => "(b) direct".to_owned(),
            Self::DirectAlone => "(b) direct, one at a time".to_owned(),
            Self::Router => "(c) router, 16 callers".to_owned(),
            Self::Http(clients) => format!("(d) http, {clients} clients"),
        }
    }
}

/// One measurement of a rung.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    latencies: Vec<Duration>,
}

impl Sample {
    pub(crate) fn new(images: usize, time: Duration, latencies: Vec<Duration>) -> Self {
        Self { per_second: images as f64 / time.as_secs_f64(), latencies }
    }

    /// Creates a sample without latencies.
    pub(crate) fn from_speed(per_second: f64) -> Self {
        Self { per_second, latencies: Vec::new() }
    }

    /// Combines samples that ran concurrently.
    pub(crate) fn combined(samples: Vec<Self>) -> Self {
        let per_second = samples.iter().map(|sample| sample.per_second).sum();
        Self { per_second, latencies: samples.into_iter().flat_map(|sample| sample.latencies).collect() }
    }
}

/// All measurements.
pub(crate) struct Report {
    model: String,
    layer: String,
    side_px: u32,
    threads: usize,
    best_batch: usize,
    rungs: BTreeMap<Rung, Vec<Sample>>,
    open: Vec<(f64, OpenSample)>,
    /// GPU utilisation by the number of clients.
    gpu: BTreeMap<usize, GpuUse>,
}

#[derive(Serialize)]
struct RungDocument {
    rung: String,
    images_per_second: Vec<f64>,
    median_images_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct RatioDocument {
    ratio: String,
    median: f64,
    low: f64,
    high: f64,
}

#[derive(Serialize)]
struct Document<'a> {
    model: &'a str,
    layer: &'a str,
    side_px: u32,
    threads: usize,
    best_batch: usize,
    rungs: Vec<RungDocument>,
    ratios: Vec<RatioDocument>,
    alone_over_direct_ms: f64,
    gpu_by_clients: &'a BTreeMap<usize, GpuUse>,
    open_loop: Vec<(f64, OpenSample)>,
}

impl Report {
    pub(crate) fn new(task: &Task, model: &str, best_batch: usize) -> Self {
        Self {
            model: model.to_owned(),
            layer: task.layers.names().join("+"),
            side_px: task.side_px,
            threads: task.config.engine.threads,
            best_batch,
            rungs: BTreeMap::new(),
            open: Vec::new(),
            gpu: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, rung: Rung, sample: Sample) {
        self.rungs.entry(rung).or_default().push(sample);
    }

    /// Sets the GPU utilisation; the last round replaces earlier ones.
    pub(crate) fn note_gpu(&mut self, clients: usize, gpu: Option<GpuUse>) {
        self.gpu.extend(gpu.map(|gpu| (clients, gpu)));
    }

    pub(crate) fn add_open(&mut self, share: f64, sample: OpenSample) {
        self.open.push((share, sample));
    }

    /// Images per second of the best closed loop over HTTP.
    pub(crate) fn peak(&self) -> f64 {
        self.speeds(self.busiest()).map_or(0.0, |speeds| median(&speeds))
    }

    fn busiest(&self) -> Rung {
        let http = self.rungs.keys().copied().filter(|rung| matches!(rung, Rung::Http(_)));
        let speed = |rung: Rung| self.speeds(rung).map_or(0.0, |speeds| median(&speeds));
        http.max_by(|&one, &other| speed(one).total_cmp(&speed(other))).unwrap_or(Rung::Http(1))
    }

    fn speeds(&self, rung: Rung) -> Option<Vec<f64>> {
        Some(self.rungs.get(&rung)?.iter().map(|sample| sample.per_second).collect())
    }

    fn latencies(&self, rung: Rung) -> Vec<Duration> {
        self.rungs.get(&rung).into_iter().flatten().flat_map(|sample| sample.latencies.clone()).collect()
    }

    /// Ratios within each round, as median and quartiles.
    fn ratios(&self) -> Vec<RatioDocument> {
        let pairs = [
            (Rung::Direct, Rung::Engine),
            (Rung::Router, Rung::Direct),
            (self.busiest(), Rung::Direct),
            (self.busiest(), Rung::Engine),
            (Rung::Direct, Rung::Python),
        ];
        let ratio = |(one, other): (Rung, Rung)| {
            let (ones, others) = (self.speeds(one)?, self.speeds(other)?);
            let mut ratios: Vec<f64> = ones.iter().zip(&others).map(|(one, other)| one / other).collect();
            ratios.sort_by(f64::total_cmp);
            Some(RatioDocument {
                ratio: format!("{} / {}", one.name().trim(), other.name().trim()),
                median: median(&ratios),
                low: ratios[ratios.len() / 4],
                high: ratios[(ratios.len() * 3 / 4).min(ratios.len() - 1)],
            })
        };
        pairs.into_iter().filter_map(ratio).collect()
    }

    /// Time of a single HTTP request beyond the work itself, in milliseconds.
    fn alone_over_direct_ms(&self) -> f64 {
        let p50 = |rung| percentile(&self.latencies(rung), 0.5);
        p50(Rung::Http(1)) - p50(Rung::DirectAlone)
    }

    fn documents(&self) -> Vec<RungDocument> {
        let document = |(&rung, samples): (&Rung, &Vec<Sample>)| {
            let images_per_second: Vec<f64> = samples.iter().map(|sample| sample.per_second).collect();
            let latencies = self.latencies(rung);
            RungDocument {
                rung: rung.name(),
                median_images_per_second: median(&images_per_second),
                images_per_second,
                p50_ms: percentile(&latencies, 0.5),
                p99_ms: percentile(&latencies, 0.99),
            }
        };
        self.rungs.iter().map(document).collect()
    }

    pub(crate) fn text(&self) -> String {
        let mut text = format!(
            "{} {} at {} px, {} threads, best batch of the bare loop {}\n\n| rung | images/s | p50 ms | p99 ms |\n|---|---|---|---|\n",
            self.model, self.layer, self.side_px, self.threads, self.best_batch
        );
        for rung in self.documents() {
            let RungDocument { rung, median_images_per_second: speed, p50_ms, p99_ms, .. } = rung;
            let _ = writeln!(text, "| {rung} | {speed:.1} | {p50_ms:.1} | {p99_ms:.1} |");
        }
        text.push_str("\n| ratio | median | quartiles |\n|---|---|---|\n");
        for RatioDocument { ratio, median, low, high } in self.ratios() {
            let _ = writeln!(text, "| {ratio} | {median:.3} | {low:.3}–{high:.3} |");
        }
        let _ = writeln!(
            text,
            "\nA single request: {:.2} ms more than the work itself (medians).",
            self.alone_over_direct_ms()
        );
        for (clients, GpuUse { busy, most_memory_mib }) in &self.gpu {
            let _ = writeln!(
                text,
                "With {clients} clients the GPU is busy {busy:.2} of the time, {most_memory_mib} MiB in use."
            );
        }
        if !self.open.is_empty() {
            text.push_str("\n| offered / peak | offered/s | answered/s | of peak | refused/s | failed | answered p50, p99 ms | refused p50, p99 ms | memory MB before, most |\n|---|---|---|---|---|---|---|---|---|\n");
        }
        for (share, open) in &self.open {
            let _ = writeln!(
                text,
                "| {share} | {:.1} | {:.1} | {:.3} | {:.1} | {} | {:.0}, {:.0} | {:.1}, {:.1} | {}, {} |",
                open.offered_per_second,
                open.answered_per_second,
                open.answered_per_second / self.peak(),
                open.refused_per_second,
                open.failed,
                open.answered_p50_ms,
                open.answered_p99_ms,
                open.refused_p50_ms,
                open.refused_p99_ms,
                open.resident_before_bytes >> 20,
                open.resident_most_bytes >> 20,
            );
        }
        text
    }

    pub(crate) fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(&Document {
            model: &self.model,
            layer: &self.layer,
            side_px: self.side_px,
            threads: self.threads,
            best_batch: self.best_batch,
            rungs: self.documents(),
            ratios: self.ratios(),
            alone_over_direct_ms: self.alone_over_direct_ms(),
            gpu_by_clients: &self.gpu,
            open_loop: self.open.clone(),
        })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Percentile in milliseconds; NaN if there are no latencies.
pub(crate) fn percentile(latencies: &[Duration], share: f64) -> f64 {
    let mut sorted = latencies.to_vec();
    sorted.sort();
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let statistics = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: Option<u64> = statistics.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or_default() * PAGE_BYTES
}
