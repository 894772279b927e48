//! What is computed of a picture, and with what: the model, the engines, the CPU pool.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::admission::Admitted;
use super::observe::{RequestContext, Stage};
use super::state::AppState;
use crate::cache::Recipe;
use crate::error::ApiError;
use densecl_inference::batch::{BatchError, LayerOutput};
use densecl_inference::backend::LayerSet;
use densecl_inference::registry::{LookupError, ModelInput, Registry, ServedModel};
use densecl_models::geometry::{CELL_MULTIPLE_PX, inference_size};
use densecl_vision::features::{FeatureMap, HypercolumnError, LayerScaling, ShapeError, hypercolumn};
use densecl_vision::image::{ImageSize, ResizeError, RgbImage, resize};

const FLOAT_BYTES: u64 = 4;

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

    /// The very extraction that kept features came from, as far as it is still possible.
    pub(super) fn of(app: &AppState, recipe: &Recipe) -> Result<Self, ApiError> {
        let layer = recipe.layer_name();
        let choice = ExtractionChoice {
            model: Some(&recipe.model),
            version: Some(recipe.version),
            layer: Some(&layer),
            side: Some(u64::from(recipe.side_px)),
        };
        Self::resolve(app, &choice)
    }

    /// The bytes of a picture of this size as the model sees it.
    pub(super) fn input_bytes(&self, picture: ImageSize) -> u64 {
        3 * inference_size(picture, self.side_px).pixels()
    }

    /// The bytes of its layers, each at its own resolution.
    pub(super) fn layers_bytes(&self, picture: ImageSize) -> u64 {
        let input = inference_size(picture, self.side_px);
        let manifest = self.model.manifest();
        let layers = self.layers.names().iter().filter_map(|name| manifest.layer(name));
        let cells = |stride: u32| u64::from(input.width.div_ceil(stride)) * u64::from(input.height.div_ceil(stride));
        FLOAT_BYTES * layers.map(|layer| u64::from(layer.channels) * cells(layer.stride)).sum::<u64>()
    }

    /// The bytes of its layers as one map.
    pub(super) fn map_bytes(&self, picture: ImageSize) -> u64 {
        let (channels, grid) = self.expected_map(picture);
        FLOAT_BYTES * (channels as u64).saturating_mul(grid.cells() as u64)
    }

    /// What its features depend on beside the picture.
    pub(super) fn recipe(&self) -> Arc<Recipe> {
        Arc::new(Recipe {
            model: self.model.name().to_owned(),
            version: self.model.version(),
            digest: *self.model.digest(),
            layers: self.layers.clone(),
            side_px: self.side_px,
        })
    }

    /// The layers as a request names them.
    pub(super) fn layer_name(&self) -> String {
        self.layers.names().join("+")
    }
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
pub(super) fn model_input(image: &RgbImage, side_px: u32) -> Result<ModelInput, ResizeError> {
    let size = inference_size(ImageSize::from(image.dimensions()), side_px);
    let resized = resize(image, size)?;
    Ok(ModelInput { height: size.height as usize, width: size.width as usize, rgb: resized.into_raw() })
}

/// The layers of one picture as one map.
fn stack(layers: Vec<LayerOutput>, scaling: LayerScaling) -> Result<FeatureMap, PipelineError> {
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
