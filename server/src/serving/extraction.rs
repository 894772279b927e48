//! Features of a request's images: found in the cache, computed, or shared with another request that computes them.

use std::sync::Arc;

use bytes::Bytes;

use super::admission::Admitted;
use super::error::ServingError;
use super::extractor::model_input;
use super::known_features::is_served_here;
use super::selection::Selection;
use super::service::Service;
use super::timings::{Stage, WorkContext};
use crate::cache::{CachedFeatures, CachedMaps, FeatureCache, FeatureId, FeatureKey, MapsKind, Recipe, Role};
use densecl_inference::batch::LayerOutput;
use densecl_inference::registry::ModelInput;
use densecl_models::geometry::inference_size;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::{
    DecodeLimits, DecodeResizedError, ImageSize, PictureHeader, ResizedPicture, RgbImage, decode, decode_resized, probe,
};

/// Files up to this size are hashed on the async thread, which takes less than a millisecond, about as long as a
/// hand-over to another thread.
const HASHED_INLINE_BYTES: usize = 256 << 10;

/// Extraction for one request: the service, the request's deadline and memory, and the selected features.
#[derive(Clone)]
pub(crate) struct FeatureExtraction {
    pub(crate) service: Service,
    pub(crate) context: WorkContext,
    pub(crate) selection: Selection,
    pub(crate) admitted: Admitted,
}

/// An image of a request whose features may not be computed yet.
pub(crate) struct RequestedImage {
    pub(crate) size: ImageSize,
    pub(crate) id: FeatureId,
    features: FeatureState,
}

enum FeatureState {
    Found(Arc<CachedFeatures>),
    Missing(Missing),
}

/// An image whose features are not in the cache.
#[derive(Clone)]
struct Missing {
    file: Bytes,
    header: PictureHeader,
    key: FeatureKey,
    /// True if the request has taken a slot for it.
    has_slot: bool,
}

impl RequestedImage {
    /// Creates an image from cached features, as [`find_known_features`](super::known_features::find_known_features)
    /// returns them.
    pub(crate) fn from_features(
        extraction: &FeatureExtraction,
        features: Arc<CachedFeatures>,
    ) -> Result<Self, ServingError> {
        // Reserved even though the features are shared: the cache may evict them before the reply is sent.
        extraction.admitted.reserve(extraction.selection.map_bytes(features.image))?;
        Ok(Self { size: features.image, id: features.id(), features: FeatureState::Found(features) })
    }

    /// Looks up the features of an uploaded image. If they are not cached, reads the header of the file.
    pub(crate) async fn look_up(
        extraction: &FeatureExtraction,
        file: Bytes,
        form: MapsKind,
    ) -> Result<Self, ServingError> {
        let key = feature_key(&file, extraction.selection.recipe()).await?;
        let id = key.id();
        if let Some(cache) = extraction.service.cache()
            && let Some(found) = cache.find(id, form, is_served_here(&extraction.service)).await
        {
            return Self::from_features(extraction, found);
        }
        let header = probe(&file, &extraction.decode_limits())?;
        extraction.admitted.reserve(extraction.selection.map_bytes(header.size))?;
        let missing = Missing { file, header, key, has_slot: false };
        Ok(Self { size: header.size, id, features: FeatureState::Missing(missing) })
    }

    /// Returns the features, in `form` or as layers, and computes them if they are missing.
    pub(crate) async fn features(
        self,
        extraction: &FeatureExtraction,
        form: MapsKind,
    ) -> Result<Arc<CachedFeatures>, ServingError> {
        let Some(cache) = extraction.service.cache() else {
            return match self.features {
                FeatureState::Found(found) => Ok(found),
                FeatureState::Missing(missing) => extraction.compute(missing).await.map(Arc::new),
            };
        };
        let found = match self.features {
            FeatureState::Found(found) => found,
            FeatureState::Missing(missing) => match extraction.join_or_compute(cache, self.id, missing).await? {
                (features, Role::Started) => return Ok(features),
                (features, Role::Joined) => features,
            },
        };
        // Features that are requested again are normalised once and kept.
        if form == MapsKind::Unit { extraction.unit_features(cache, found).await } else { Ok(found) }
    }
}

impl FeatureExtraction {
    /// Begins a request, which holds nothing yet.
    pub(crate) fn new(service: Service, context: WorkContext, selection: Selection) -> Self {
        let admitted = service.admit();
        Self { service, context, selection, admitted }
    }

    /// Runs `job` on the CPU pool and counts its time.
    pub(crate) async fn on_cpu<T: Send + 'static>(
        &self,
        stage: Stage,
        job: impl FnOnce() -> Result<T, ServingError> + Send + 'static,
    ) -> Result<T, ServingError> {
        let timings = self.context.timings.clone();
        self.service.cpu().run(move || timings.measure(stage, job)).await?
    }

    /// Runs the model.
    async fn infer(&self, input: ModelInput) -> Result<Vec<LayerOutput>, ServingError> {
        let Selection { model, layers, .. } = &self.selection;
        let reply = model.run(input, layers.clone(), self.context.deadline).await?;
        self.context.timings.add_run(reply.queued, reply.inference);
        Ok(reply.layers)
    }

    /// Takes slots for the images that must be computed and that no other request computes, but at least `min_slots`.
    pub(crate) fn take_slots<'a>(
        &self,
        images: impl IntoIterator<Item = &'a mut RequestedImage>,
        min_slots: usize,
    ) -> Result<(), ServingError> {
        let mut count = 0;
        for image in images {
            if let FeatureState::Missing(missing) = &mut image.features
                && !self.service.computations().is_running(&image.id)
            {
                missing.has_slot = true;
                count += 1;
            }
        }
        self.service.take_slots(&self.admitted, count.max(min_slots), self.context.deadline)
    }

    /// Decodes an uploaded image.
    pub(crate) async fn pixels(&self, file: Bytes) -> Result<RgbImage, ServingError> {
        let limits = self.decode_limits();
        self.admitted.reserve(probe(&file, &limits)?.peak_bytes)?;
        self.on_cpu(Stage::Decode, move || Ok(decode(&file, &limits)?)).await
    }

    /// Joins the running computation of these features, or starts one. If a joined computation fails because the other
    /// request lacks time or memory, this request starts its own.
    async fn join_or_compute(
        &self,
        cache: &FeatureCache,
        id: FeatureId,
        mut missing: Missing,
    ) -> Result<(Arc<CachedFeatures>, Role), ServingError> {
        let computations = self.service.computations();
        loop {
            if !missing.has_slot && !computations.is_running(&id) {
                // The computation that this request would have joined has just ended.
                if let Some(found) = cache.find_in_memory(id, MapsKind::Layers).await {
                    return Ok((found, Role::Joined));
                }
                self.service.take_slots(&self.admitted, 1, self.context.deadline)?;
                missing.has_slot = true;
            }
            let work = self.clone().compute_and_keep(cache.clone(), id, missing.clone());
            let (computation, role) = computations.join_or_start(id, work);
            if role == Role::Joined {
                cache.count_coalesced();
            }
            match computation.await {
                Ok(features) => return Ok((features, role)),
                Err(error) if role == Role::Joined && !error.is_caused_by_image() => {}
                Err(error) => return Err(ServingError::Shared(error)),
            }
        }
    }

    /// Returns the features as [`MapsKind::Unit`]. They are normalised once for all waiting requests, and cached.
    async fn unit_features(
        &self,
        cache: &FeatureCache,
        features: Arc<CachedFeatures>,
    ) -> Result<Arc<CachedFeatures>, ServingError> {
        let id = features.id();
        // Another request may have normalised them in the meantime.
        let features = cache.find_in_memory(id, MapsKind::Unit).await.unwrap_or(features);
        if features.kind() == MapsKind::Unit {
            return Ok(features);
        }
        let (extraction, cache) = (self.clone(), cache.clone());
        let normalizing = async move {
            let to_unit = move || Ok(Arc::new(features.to_unit().map_err(ServingError::internal)?));
            let unit = extraction.on_cpu(Stage::Encode, to_unit).await.map_err(Arc::new)?;
            cache.insert(Arc::clone(&unit)).await;
            Ok(unit)
        };
        let (computation, _) = self.service.normalizations().join_or_start(id, normalizing);
        computation.await.map_err(ServingError::Shared)
    }

    async fn compute_and_keep(
        self,
        cache: FeatureCache,
        id: FeatureId,
        missing: Missing,
    ) -> Result<Arc<CachedFeatures>, Arc<ServingError>> {
        // Another computation may have ended since this request looked into the cache.
        if let Some(found) = cache.find_in_memory(id, MapsKind::Layers).await {
            return Ok(found);
        }
        let features = Arc::new(self.compute(missing).await.map_err(Arc::new)?);
        cache.insert(Arc::clone(&features)).await;
        Ok(features)
    }

    /// Reserves memory, decodes and resizes the image on the CPU pool, and runs the model.
    async fn compute(&self, missing: Missing) -> Result<CachedFeatures, ServingError> {
        let Missing { file, header, key, .. } = missing;
        let selection = &self.selection;
        let input_bytes = selection.input_bytes(header.size).saturating_add(header.peak_bytes);
        // The map is reserved already; a second time while it is made.
        let output_bytes = selection.layers_bytes(header.size).saturating_add(selection.map_bytes(header.size));
        self.admitted.reserve(input_bytes.saturating_add(output_bytes))?;
        let (limits, side_px) = (self.decode_limits(), self.selection.side_px);
        let decoding = move || {
            let decoded = decode_resized(&file, &limits, |size| inference_size(size, side_px));
            let ResizedPicture { full_size, pixels } = decoded.map_err(|error| match error {
                DecodeResizedError::Decode(error) => error.into(),
                DecodeResizedError::Resize(error) => ServingError::internal(error),
            })?;
            Ok((full_size, model_input(pixels)))
        };
        let (image, input) = self.on_cpu(Stage::Decode, decoding).await?;
        let layers = self.infer(input).await?.into_iter();
        let maps = layers.map(|layer| FeatureMap::new(layer.channels, layer.height, layer.width, layer.data));
        let maps = maps.collect::<Result<_, _>>().map_err(ServingError::internal)?;
        Ok(CachedFeatures { key, image, maps: CachedMaps::Layers(maps) })
    }

    /// Limits of decoding an image.
    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits { max_pixels: self.service.limits().max_pixels }
    }
}

async fn feature_key(file: &Bytes, recipe: Arc<Recipe>) -> Result<FeatureKey, ServingError> {
    if file.len() <= HASHED_INLINE_BYTES {
        return Ok(FeatureKey::from_file(file, recipe));
    }
    let file = file.clone();
    let hashing = tokio::task::spawn_blocking(move || FeatureKey::from_file(&file, recipe));
    hashing.await.map_err(ServingError::internal)
}
