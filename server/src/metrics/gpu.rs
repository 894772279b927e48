//! Metrics of the GPUs: memory and load, read from NVIDIA's driver when `/metrics` is read. Without
//! an engine on a GPU there are none.

use std::fmt;
use std::sync::{Arc, OnceLock};

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::signed;

/// Library of the driver. The one without a number comes with the toolkit, which a server does not
/// need.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// GPUs that this process may see.
#[derive(Clone, Debug)]
pub struct GpuMetrics(Arc<OnceLock<Nvml>>);

impl GpuMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self(Arc::default());
        registry.register_collector(Box::new(metrics.clone()));
        metrics
    }

    /// Starts to report the GPUs. Without the driver's library it logs a warning and reports none.
    pub fn start(&self) {
        match Nvml::builder().lib_path(LIBRARY.as_ref()).init() {
            // A second call changes nothing.
            Ok(nvml) => drop(self.0.set(nvml)),
            Err(error) => tracing::warn!(%error, "no metrics of the GPUs"),
        }
    }
}

/// Values of one GPU.
struct GpuValues {
    /// Number and unique name. CUDA may number GPUs in another order than the driver.
    labels: [(&'static str, String); 2],
    used_bytes: i64,
    total_bytes: i64,
    /// Busy share of the last sampling period, 0 to 1; `None` for a MIG instance.
    utilization: Option<f64>,
}

impl GpuValues {
    fn read(nvml: &Nvml, index: u32) -> Result<Self, NvmlError> {
        let device = nvml.device_by_index(index)?;
        let memory = device.memory_info()?;
        Ok(Self {
            labels: [("gpu", index.to_string()), ("uuid", device.uuid()?)],
            used_bytes: signed(memory.used),
            total_bytes: signed(memory.total),
            utilization: device.utilization_rates().ok().map(|rates| f64::from(rates.gpu) / 100.0),
        })
    }
}

impl Collector for GpuMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(nvml) = self.0.get() else { return Ok(()) };
        let count = nvml.device_count().unwrap_or(0);
        let gpus: Vec<GpuValues> = (0..count).filter_map(|index| GpuValues::read(nvml, index).ok()).collect();
        let mut family = |name, help, value: &dyn Fn(&GpuValues) -> Option<f64>| -> fmt::Result {
            let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for gpu in &gpus {
                let Some(value) = value(gpu) else { continue };
                ConstGauge::new(value).encode(metric.encode_family(&gpu.labels)?)?;
            }
            Ok(())
        };
        family("gpu_memory_used_bytes", "Memory of the GPU that is used", &|gpu| Some(gpu.used_bytes as f64))?;
        family("gpu_memory_limit_bytes", "Memory of the GPU", &|gpu| Some(gpu.total_bytes as f64))?;
        family("gpu_utilization_ratio", "Share of the last sampling period in which the GPU worked", &|gpu| {
            gpu.utilization
        })
    }
}
