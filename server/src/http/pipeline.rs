//! From the bytes of a picture to its feature map: decode, resize, infer, stack.

use std::fmt;
use std::future::Future;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use sha2::{Digest, Sha256};

use super::admission::Admitted;
use super::observe::{RequestContext, Stage};
use super::state::AppState;
use crate::batch::{BatchError, LayerOutput};
use crate::engine::LayerSet;
use crate::error::ApiError;
use crate::features::{FeatureMap, HypercolumnError, LayerScaling, ShapeError, hypercolumn};
use crate::image::{
    CELL_MULTIPLE_PX, DecodeLimits, ImageSize, ResizeError, RgbImage, decode, inference_size, probe, resize,
};
use crate::registry::{LookupError, ModelInput, Registry, ServedModel};

/// What a request says about model, layer and side.
#[derive(Clone, Debug, Default)]
pub(super) struct ExtractionChoice<'a> {
    pub(super) model: Option<&'a str>,
    pub(super) version: Option<u32>,
    pub(super) layer: Option<&'a str>,
    pub(super) side: Option<u64>,
}

/// Which features of a picture are wanted; all of it exists.
#[derive(Clone)]
pub(super) struct Extraction {
    pub(super) model: ServedModel,
    pub(super) layers: LayerSet,
    pub(super) side_px: u32,
}

impl Extraction {
    pub(super) fn resolve(app: &AppState, choice: &ExtractionChoice<'_>) -> Result<Self, ApiError> {
        let model = app.registry()?.find(choice.model, choice.version)?.clone();
        let layers = model.layers(choice.layer)?;
        let max_side_px = app.config().limits.max_side_px;
        // A server with a low limit still answers requests that name no side.
        let default = u64::from(model.manifest().default_side.min(max_side_px));
        let asked = choice.side.unwrap_or(default);
        let side_px = u32::try_from(asked).ok().filter(|side| (CELL_MULTIPLE_PX..=max_side_px).contains(side));
        let side_px = side_px.ok_or(ApiError::SideOutOfRange { side_px: asked, max_side_px })?;
        Ok(Self { model, layers, side_px })
    }

    /// Most bytes that the features of a picture of this size take: the model's input, its layers,
    /// the layers as one map, and the reply made of it.
    fn memory_bytes(&self, picture: ImageSize) -> u64 {
        const FLOAT_BYTES: u64 = 4;
        let input = inference_size(picture, self.side_px);
        let manifest = self.model.manifest();
        let layers: Vec<_> = self.layers.names().iter().filter_map(|name| manifest.layer(name)).collect();
        let cells = |stride: u32| u64::from(input.width.div_ceil(stride)) * u64::from(input.height.div_ceil(stride));
        let outputs: u64 = layers.iter().map(|layer| u64::from(layer.channels) * cells(layer.stride)).sum();
        let channels: u64 = layers.iter().map(|layer| u64::from(layer.channels)).sum();
        let map = channels * layers.iter().map(|layer| cells(layer.stride)).max().unwrap_or_default();
        3 * input.pixels() + FLOAT_BYTES * (outputs + 2 * map)
    }

    /// The layers as a request names them.
    pub(super) fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }
}

/// Names the features of a picture by the bytes of its file and by how they are computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FeatureId(String);

impl FeatureId {
    fn new(extraction: &Extraction, file: &[u8]) -> Self {
        let model = &extraction.model;
        let recipe = format!("{}/{}/{}/{}", model.name(), model.version(), extraction.layer_name(), extraction.side_px);
        let mut hash = Sha256::new();
        hash.update(format!("{recipe}\n"));
        hash.update(file);
        let hash = hash.finalize();
        let first: [u8; 16] = std::array::from_fn(|byte| hash[byte]);
        Self(format!("{:032x}", u128::from_be_bytes(first)))
    }
}

impl fmt::Display for FeatureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A picture that was decoded, and what the model is to see of it.
pub(super) struct Decoded {
    pub(super) image: RgbImage,
    pub(super) size: ImageSize,
    pub(super) id: FeatureId,
    pub(super) input: ModelInput,
}

/// The steps that need the server, for one request.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub(super) app: AppState,
    pub(super) context: RequestContext,
    pub(super) extraction: Extraction,
    pub(super) admitted: Admitted,
}

impl Pipeline {
    /// Decodes and resizes a picture on the CPU pool, after memory for it and for its features
    /// was set aside.
    pub(super) async fn decode(&self, bytes: Bytes) -> Result<Decoded, ApiError> {
        let limits = DecodeLimits { max_pixels: self.app.config().limits.max_pixels };
        let header = probe(&bytes, &limits)?;
        self.admitted.reserve(header.peak_bytes.saturating_add(self.extraction.memory_bytes(header.size)))?;
        let extraction = self.extraction.clone();
        self.on_cpu(Stage::Decode, move || {
            let image = decode(&bytes, &limits)?;
            let id = FeatureId::new(&extraction, &bytes);
            drop(bytes);
            let input = model_input(&image, extraction.side_px).map_err(ApiError::internal)?;
            Ok(Decoded { size: ImageSize::of(&image), image, id, input })
        })
        .await
    }

    /// Runs the model.
    pub(super) async fn infer(&self, input: ModelInput) -> Result<Vec<LayerOutput>, ApiError> {
        let Extraction { model, layers, .. } = &self.extraction;
        let reply = model.run(input, layers.clone(), self.context.deadline).await?;
        self.context.timings.add_run(reply.queued, reply.inference);
        Ok(reply.layers)
    }

    /// Runs `job` on the CPU pool and counts its time.
    pub(super) async fn on_cpu<T: Send + 'static>(
        &self,
        stage: Stage,
        job: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let timings = self.context.timings.clone();
        self.app.cpu().run(move || timings.measure(stage, job)).await?
    }
}

impl RequestContext {
    /// Waits for a body as long as `limit`, but not past the request's own deadline.
    pub(super) async fn receive<T>(
        &self,
        limit: Duration,
        body: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        let until = self.deadline.min(Instant::now() + limit);
        let timeout = tokio::time::timeout_at(until.into(), body).await;
        timeout.unwrap_or(Err(ApiError::BodyTooSlow { limit }))
    }

    /// Waits for an answer, but not past the deadline. What was not begun by then never is.
    pub(super) async fn answer<T>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        match tokio::time::timeout_at(self.deadline.into(), answer).await {
            // The queue may notice first; it does not know the limit.
            Ok(Err(ApiError::DeadlinePassed { .. })) | Err(_) => Err(ApiError::DeadlinePassed { limit }),
            Ok(result) => result,
        }
    }
}

/// The picture at the size that the model is to see.
fn model_input(image: &RgbImage, side_px: u32) -> Result<ModelInput, ResizeError> {
    let size = inference_size(ImageSize::of(image), side_px);
    let resized = resize(image, size)?;
    Ok(ModelInput { height: size.height as usize, width: size.width as usize, rgb: resized.into_raw() })
}

/// The layers of one picture as one map.
pub(super) fn stack(layers: Vec<LayerOutput>, scaling: LayerScaling) -> Result<FeatureMap, PipelineError> {
    let maps = layers.into_iter().map(|layer| FeatureMap::new(layer.channels, layer.height, layer.width, layer.data));
    Ok(hypercolumn(maps.collect::<Result<_, _>>()?, scaling)?)
}

/// Features could not be computed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The model or layer does not exist.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// The picture cannot be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// The model could not be run.
    #[error(transparent)]
    Run(#[from] BatchError),
    /// The model's output is not a map.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// No layers.
    #[error(transparent)]
    Hypercolumn(#[from] HypercolumnError),
}

impl From<PipelineError> for ApiError {
    fn from(error: PipelineError) -> Self {
        Self::internal(error)
    }
}

/// Computes features of pictures as the server does, for callers that may wait: the evaluation
/// runs the very path that serves.
pub struct FeatureExtractor {
    model: ServedModel,
    layers: LayerSet,
    side_px: u32,
}

impl FeatureExtractor {
    /// Long enough for any picture; there is nobody who would lose patience.
    const TIMEOUT: Duration = Duration::from_mins(10);

    /// Features of `model` (the first if `None`), `layer` and `side_px` (the manifest's if `None`).
    ///
    /// # Errors
    /// If there is no such model or layer.
    pub fn new(
        registry: &Registry,
        model: Option<&str>,
        layer: Option<&str>,
        side_px: Option<u32>,
    ) -> Result<Self, LookupError> {
        let model = registry.find(model, None)?.clone();
        let layers = model.layers(layer)?;
        let side_px = side_px.unwrap_or(model.manifest().default_side).max(CELL_MULTIPLE_PX);
        Ok(Self { model, layers, side_px })
    }

    /// The model whose features these are.
    pub fn model(&self) -> &ServedModel {
        &self.model
    }

    /// The layers, joined by `+`.
    pub fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }

    /// Pixels per cell of the resized picture.
    pub fn stride_px(&self) -> u32 {
        let manifest = self.model.manifest();
        let strides = self.layers.names().iter().filter_map(|name| Some(manifest.layer(name)?.stride));
        // The layers are the manifest's, and at least one.
        strides.min().unwrap_or(CELL_MULTIPLE_PX)
    }

    /// The longer side that pictures are resized to.
    pub fn side_px(&self) -> u32 {
        self.side_px
    }

    /// The features that `/correspondence` would match: each layer scaled to unit length, stacked.
    ///
    /// # Errors
    /// If the picture is empty or the model fails.
    pub fn extract(&self, image: &RgbImage) -> Result<FeatureMap, PipelineError> {
        let input = model_input(image, self.side_px)?;
        let reply = self.model.run_blocking(input, self.layers.clone(), Instant::now() + Self::TIMEOUT)?;
        stack(reply.layers, LayerScaling::Unit)
    }
}
