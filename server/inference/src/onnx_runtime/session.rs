//! One ONNX Runtime session for one cut of a model.

use std::sync::{Mutex, PoisonError};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynValue, Tensor};

use densecl_models::GLOBAL;

use super::heap;
use super::library::{Runtime, Threads};
use crate::backend::{BackendError, ImageBatch, LayerOutput, LayerSet, Provider};
use crate::model_file::ModelFile;

/// Runs of more pixels than this return their memory afterwards: otherwise the process would keep the memory of the
/// largest image that it has ever seen. Smaller runs keep it, and are faster for that.
const KEPT_PIXELS: usize = 1 << 18;

static BUILDING: Mutex<()> = Mutex::new(());

/// A session and the settings of its runs. Only the thread that owns it uses it.
pub(super) struct CutSession {
    session: Session,
    /// Name of the model's input.
    input: String,
    /// Host memory that the device reads from directly.
    allocator: Allocator,
    /// Host memory that the device writes to directly.
    output_memory: MemoryInfo<'static>,
    /// Options of runs that keep their memory, and of those that return it.
    keep_memory: RunOptions,
    return_memory: RunOptions,
}

/// Use of the memory of a run's intermediate values after its end.
#[derive(Clone, Copy)]
enum RunMemory {
    Kept,
    Returned,
}

impl CutSession {
    /// Reads the model's file and builds a session that computes just `layers`.
    pub(super) fn build(
        runtime: &Runtime,
        model: &ModelFile,
        layers: &LayerSet,
        threads: Threads,
    ) -> Result<Self, BackendError> {
        // Building takes several copies of the weights for a moment: one session at a time.
        let _guard = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = layers.names().iter().map(String::as_str).collect();
        let path = || model.path().to_path_buf();
        let cut = model.read()?.cut(&names, runtime.precision());
        let graph = cut.map_err(|source| BackendError::Model { path: path(), source })?;
        let session = Self::from_graph(runtime, &graph, threads)
            .map_err(|source| BackendError::Session { path: path(), source: source.into() })?;
        drop(graph);
        heap::return_freed();
        tracing::info!(model = model.name(), version = model.version(), layers = %layers.names().join("+"), ?threads, "session built");
        Ok(session)
    }

    fn from_graph(runtime: &Runtime, graph: &[u8], threads: Threads) -> ort::Result<Self> {
        let session = runtime.session_builder(threads)?.commit_from_memory(graph)?;
        let input = session.inputs().first().map(|input| input.name().to_owned()).unwrap_or_default();
        let provider = runtime.provider();
        let allocator = Allocator::new(&session, host_memory(provider, MemoryType::CPUInput)?)?;
        let output_memory = host_memory(provider, MemoryType::CPUOutput)?;
        let mut return_memory = RunOptions::new()?;
        if provider == Provider::Cpu {
            return_memory.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        }
        Ok(Self { session, input, allocator, output_memory, keep_memory: RunOptions::new()?, return_memory })
    }

    /// Runs a batch: a list of layers per image.
    pub(super) fn run(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        let pixels = batch.images.len() * batch.height * batch.width;
        let memory = if pixels > KEPT_PIXELS { RunMemory::Returned } else { RunMemory::Kept };
        self.run_with(layers, batch, memory)
    }

    /// Runs a batch and returns its memory, whatever its size, so that an idle server stays small.
    pub(super) fn run_once(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        self.run_with(layers, batch, RunMemory::Returned)
    }

    fn run_with(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        memory: RunMemory,
    ) -> Result<Vec<Vec<LayerOutput>>, BackendError> {
        let binding = self.bind(layers, batch).map_err(run_failed)?;
        let options = match memory {
            RunMemory::Kept => &self.keep_memory,
            RunMemory::Returned => &self.return_memory,
        };
        let outputs = self.session.run_binding_with_options(&binding, options).map_err(run_failed)?;
        let mut images: Vec<Vec<LayerOutput>> = Vec::new();
        images.resize_with(batch.images.len(), Vec::new);
        for layer in layers.names() {
            let value = outputs.get(layer).ok_or_else(|| wrong_output(layer, "it is missing".to_owned()))?;
            split(layer, value, &mut images)?;
        }
        Ok(images)
    }

    /// The images in memory that the device reads from, `[N, H, W, 3]`, and the layers in memory
    /// that it writes to.
    fn bind(&self, layers: &LayerSet, batch: ImageBatch<'_>) -> ort::Result<IoBinding> {
        let ImageBatch { height, width, images } = batch;
        let mut input = Tensor::<u8>::new(&self.allocator, [images.len(), height, width, 3])?;
        let (_, pixels) = input.extract_tensor_mut();
        for (target, image) in pixels.chunks_exact_mut(height * width * 3).zip(images) {
            target.copy_from_slice(image);
        }
        let mut binding = self.session.create_binding()?;
        binding.bind_input(&self.input, &input)?;
        for layer in layers.names() {
            binding.bind_output_to_device(layer, &self.output_memory)?;
        }
        Ok(binding)
    }
}

/// Memory of the host that `provider` is fastest with: pinned for a GPU.
fn host_memory(provider: Provider, memory_type: MemoryType) -> ort::Result<MemoryInfo<'static>> {
    match provider {
        Provider::Cpu => MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default),
        Provider::Cuda(_) => MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, memory_type),
    }
}

/// Appends to each image its part of a layer's `[N, C, h, w]`, or of the vectors `[N, D]` as one cell.
fn split(layer: &str, value: &DynValue, images: &mut [Vec<LayerOutput>]) -> Result<(), BackendError> {
    let (shape, data) = value.try_extract_tensor::<f32>().map_err(run_failed)?;
    let mut dimensions: Vec<usize> = shape.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
    if layer == GLOBAL && dimensions.len() == 2 {
        dimensions.extend([1, 1]);
    }
    let [count, channels, height, width]: [usize; 4] =
        dimensions.try_into().map_err(|d| wrong_output(layer, format!("its shape {d:?} is not [N, C, h, w]")))?;
    if count != images.len() || data.is_empty() {
        let shape = [count, channels, height, width];
        return Err(wrong_output(layer, format!("its shape is {shape:?} for {} images", images.len())));
    }
    for (image, data) in images.iter_mut().zip(data.chunks_exact(channels * height * width)) {
        image.push(LayerOutput { channels, height, width, data: data.to_vec() });
    }
    Ok(())
}

fn run_failed(error: ort::Error) -> BackendError {
    BackendError::Run(error.into())
}

fn wrong_output(layer: &str, reason: String) -> BackendError {
    BackendError::Output { layer: layer.to_owned(), reason }
}
