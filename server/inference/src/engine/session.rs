//! One ONNX Runtime session for one cut of a model.

use std::sync::{Mutex, PoisonError};

use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, RunOptions, Session};
use ort::value::{DynValue, Tensor};

use densecl_models::GLOBAL;

use super::library::Runtime;
use super::{EngineError, ImageBatch, LayerOutput, LayerSet, ModelFile, Provider, heap};

/// Runs of more pixels than this give their memory back afterwards: what the largest image ever
/// seen took would otherwise stay with the process. Smaller ones keep it, and are the faster for it.
const KEPT_PIXELS: usize = 1 << 18;

static BUILDING: Mutex<()> = Mutex::new(());

/// Which threads a session's runs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Threads {
    /// Those of the pool that all such sessions share.
    All,
    /// As many of its own, the calling one included.
    Own(usize),
}

/// A session and the settings of its runs. Only the thread that owns it uses it.
pub(super) struct CutSession {
    session: Session,
    /// Name of the model's input.
    input: String,
    /// Host memory that the device reads from directly.
    allocator: Allocator,
    /// Host memory that the device writes to directly.
    output_memory: MemoryInfo<'static>,
    keeping: RunOptions,
    giving_back: RunOptions,
}

/// What becomes of the memory that a run took for what lies between its input and its output.
#[derive(Clone, Copy)]
enum Afterwards {
    Kept,
    GivenBack,
}

impl CutSession {
    /// Reads the model's file and builds a session that computes just `layers`.
    pub(super) fn build(
        runtime: &Runtime,
        model: &ModelFile,
        layers: &LayerSet,
        threads: Threads,
    ) -> Result<Self, EngineError> {
        // Building takes several copies of the weights for a moment: of one session at a time.
        let _one_at_a_time = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let names: Vec<&str> = layers.names().iter().map(String::as_str).collect();
        let path = || model.path().to_path_buf();
        let cut = model.read()?.cut(&names, runtime.precision());
        let graph = cut.map_err(|source| EngineError::Model { path: path(), source })?;
        let session = Self::from_graph(runtime, &graph, threads)
            .map_err(|source| EngineError::Session { path: path(), source })?;
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
        let mut giving_back = RunOptions::new()?;
        if provider == Provider::Cpu {
            giving_back.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
        }
        Ok(Self { session, input, allocator, output_memory, keeping: RunOptions::new()?, giving_back })
    }

    /// Runs a batch: a list of layers per image.
    pub(super) fn run(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<Vec<Vec<LayerOutput>>, EngineError> {
        let pixels = batch.images.len() * batch.height * batch.width;
        let memory = if pixels > KEPT_PIXELS { Afterwards::GivenBack } else { Afterwards::Kept };
        self.run_with(layers, batch, memory)
    }

    /// As [`CutSession::run`], for a batch that nobody waits for: its memory goes back, and a server
    /// that is not asked anything stays the smaller for it.
    pub(super) fn rehearse(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
    ) -> Result<Vec<Vec<LayerOutput>>, EngineError> {
        self.run_with(layers, batch, Afterwards::GivenBack)
    }

    fn run_with(
        &mut self,
        layers: &LayerSet,
        batch: ImageBatch<'_>,
        memory: Afterwards,
    ) -> Result<Vec<Vec<LayerOutput>>, EngineError> {
        let binding = self.bind(layers, batch).map_err(EngineError::Run)?;
        let options = match memory {
            Afterwards::Kept => &self.keeping,
            Afterwards::GivenBack => &self.giving_back,
        };
        let outputs = self.session.run_binding_with_options(&binding, options).map_err(EngineError::Run)?;
        let mut images: Vec<Vec<LayerOutput>> = Vec::new();
        images.resize_with(batch.images.len(), Vec::new);
        for layer in layers.names() {
            let value = outputs.get(layer).ok_or_else(|| wrong(layer, "it is missing".to_owned()))?;
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
        for (place, image) in pixels.chunks_exact_mut(height * width * 3).zip(images) {
            place.copy_from_slice(image);
        }
        let mut binding = self.session.create_binding()?;
        binding.bind_input(&self.input, &input)?;
        for layer in layers.names() {
            binding.bind_output_to_device(layer, &self.output_memory)?;
        }
        Ok(binding)
    }
}

/// Memory of the host as `provider` likes it best: pinned for a GPU.
fn host_memory(provider: Provider, memory_type: MemoryType) -> ort::Result<MemoryInfo<'static>> {
    match provider {
        Provider::Cpu => MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default),
        Provider::Cuda(_) => MemoryInfo::new(AllocationDevice::CUDA_PINNED, 0, AllocatorType::Device, memory_type),
    }
}

/// Gives each image its part of a layer's `[N, C, h, w]`, or of the vectors `[N, D]` as one cell.
fn split(layer: &str, value: &DynValue, images: &mut [Vec<LayerOutput>]) -> Result<(), EngineError> {
    let (shape, data) = value.try_extract_tensor::<f32>().map_err(EngineError::Run)?;
    let mut dimensions: Vec<usize> = shape.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
    if layer == GLOBAL && dimensions.len() == 2 {
        dimensions.extend([1, 1]);
    }
    let [count, channels, height, width]: [usize; 4] =
        dimensions.try_into().map_err(|d| wrong(layer, format!("its shape {d:?} is not [N, C, h, w]")))?;
    if count != images.len() || data.is_empty() {
        let shape = [count, channels, height, width];
        return Err(wrong(layer, format!("its shape is {shape:?} for {} images", images.len())));
    }
    for (image, data) in images.iter_mut().zip(data.chunks_exact(channels * height * width)) {
        image.push(LayerOutput { channels, height, width, data: data.to_vec() });
    }
    Ok(())
}

fn wrong(layer: &str, reason: String) -> EngineError {
    EngineError::Output { layer: layer.to_owned(), reason }
}
