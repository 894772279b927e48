//! One ONNX Runtime session for one cut of a model.

use densecl_models::OnnxModel;
use ort::session::{RunOptions, Session};
use ort::value::TensorRef;

use super::library::Runtime;
use super::{EngineError, ImageBatch, LayerBatch, LayerSet, ModelFile, Provider};

/// A session and the settings of its runs. Only the thread that owns it uses it.
pub(super) struct CutSession {
    session: Session,
    run_options: RunOptions,
}

impl CutSession {
    /// Reads the model's file and builds a session that computes just `layers`.
    pub(super) fn build(runtime: &Runtime, model: &ModelFile, layers: &LayerSet) -> Result<Self, EngineError> {
        let names: Vec<&str> = layers.names().iter().map(String::as_str).collect();
        let unreadable = |source| EngineError::Model { path: model.path.to_path_buf(), source };
        let graph = OnnxModel::open(&model.path).and_then(|onnx| onnx.cut(&names)).map_err(unreadable)?;
        let refused = |source| EngineError::Session { path: model.path.to_path_buf(), source };
        let session =
            runtime.session_builder().and_then(|mut builder| builder.commit_from_memory(&graph)).map_err(refused)?;
        let run_options = run_options(runtime.provider()).map_err(refused)?;
        tracing::info!(model = %model.name, version = model.version, layers = %layers.names().join("+"), "session built");
        Ok(Self { session, run_options })
    }

    pub(super) fn run(&mut self, layers: &LayerSet, images: ImageBatch<'_>) -> Result<Vec<LayerBatch>, EngineError> {
        let shape = [images.count, images.height, images.width, 3];
        let input = TensorRef::from_array_view((shape, images.pixels)).map_err(EngineError::Run)?;
        let outputs =
            self.session.run_with_options(ort::inputs![input], &self.run_options).map_err(EngineError::Run)?;
        let mut batches = Vec::with_capacity(layers.names().len());
        for layer in layers.names() {
            let wrong = |reason: String| EngineError::Output { layer: layer.clone(), reason };
            let value = outputs.get(layer).ok_or_else(|| wrong("it is missing".to_owned()))?;
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(EngineError::Run)?;
            let dimensions: Vec<usize> = shape.iter().filter_map(|&d| usize::try_from(d).ok()).collect();
            let shape: [usize; 4] =
                dimensions.try_into().map_err(|d| wrong(format!("its shape {d:?} is not [N, C, h, w]")))?;
            if shape[0] != images.count || shape.contains(&0) {
                return Err(wrong(format!("its shape is {shape:?} for {} images", images.count)));
            }
            batches.push(LayerBatch { shape, data: data.to_vec() });
        }
        Ok(batches)
    }
}

/// Memory of the largest image ever seen would otherwise stay with the process.
fn run_options(provider: Provider) -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    if provider == Provider::Cpu {
        options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    }
    Ok(options)
}
