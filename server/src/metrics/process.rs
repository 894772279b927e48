//! Metrics of the process: memory, processor time and files, read from `/proc` when `/metrics` is read.

use std::fmt;

use procfs::process::{LimitValue, Process};
use procfs::{ProcResult, WithCurrentSystemInfo};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::signed;

/// Registers the metrics under the names that Prometheus' own libraries use.
pub(super) fn register(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessCollector));
}

#[derive(Debug)]
struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without /proc the other metrics are still shown.
        let Ok(values) = ProcessValues::read() else { return Ok(()) };
        let mut counter = |name, help, value: f64| write(&mut encoder, name, help, &ConstCounter::new(value));
        counter("process_cpu_seconds", "Processor time of the process", values.cpu_seconds)?;
        let mut gauge = |name, help, value: i64| write(&mut encoder, name, help, &ConstGauge::new(value));
        gauge("process_resident_memory_bytes", "Memory that the process holds", values.resident_bytes)?;
        gauge("process_virtual_memory_bytes", "Address space of the process", values.virtual_bytes)?;
        gauge("process_open_fds", "Files and connections that are open", values.open_files)?;
        gauge("process_max_fds", "Files and connections that may be open", values.max_files)?;
        gauge("process_threads", "Threads of the process", values.threads)?;
        let start = ConstGauge::new(values.start_seconds);
        write(&mut encoder, "process_start_time_seconds", "When the process started, in seconds since 1970", &start)
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> Result<(), fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

struct ProcessValues {
    cpu_seconds: f64,
    resident_bytes: i64,
    virtual_bytes: i64,
    open_files: i64,
    max_files: i64,
    threads: i64,
    start_seconds: f64,
}

impl ProcessValues {
    fn read() -> ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let max_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(files) => signed(files),
            LimitValue::Unlimited => i64::MAX,
        };
        Ok(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
            resident_bytes: signed(stat.rss_bytes().get()),
            virtual_bytes: signed(stat.vsize),
            open_files: signed(process.fd_count()?),
            max_files,
            threads: stat.num_threads,
            start_seconds: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn values_are_those_of_this_process() {
        let block = std::hint::black_box(vec![1_u8; 64 << 20]);
        let values = ProcessValues::read().unwrap();
        assert!(values.resident_bytes > block.len() as i64 && values.virtual_bytes >= values.resident_bytes);
        assert!((1..100_000).contains(&values.threads) && values.cpu_seconds >= 0.0);
        let files: Vec<_> = (0..50).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let more = ProcessValues::read().unwrap();
        assert!(more.open_files >= values.open_files + 40 && more.max_files >= more.open_files, "{}", files.len());
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((0.0..86_400.0).contains(&(now - values.start_seconds)), "{} of {now}", values.start_seconds);
    }
}
