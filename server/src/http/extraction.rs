//! The features of a request's pictures: found in the cache, awaited together with other requests, or computed.

use std::sync::Arc;

use axum::body::Bytes;

use super::observe::Stage;
use super::pipeline::{Pipeline, model_input};
use super::state::AppState;
use crate::cache::{
    CachedFeatures, CachedMaps, EntryCheck, FeatureCache, FeatureId, FeatureKey, FeatureMismatch, MapsKind, Recipe,
    Role,
};
use crate::error::ApiError;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::{DecodeLimits, Header, ImageSize, RgbImage, decode, probe};

/// Files up to this size are hashed where they are: a thread that serves connections is held up for less than a
/// millisecond, which is what handing them to another one may take.
const HASHED_INLINE_BYTES: usize = 256 << 10;

/// A picture of a request, before its features are there.
pub(super) struct Picture {
    pub(super) size: ImageSize,
    pub(super) id: FeatureId,
    features: Features,
}

enum Features {
    Found(Arc<CachedFeatures>),
    Missing(Missing),
}

/// A picture whose features are not in the cache.
#[derive(Clone)]
struct Missing {
    file: Bytes,
    header: Header,
    key: FeatureKey,
    /// Whether the request has a place for it among those that are computed.
    has_place: bool,
}

impl Picture {
    /// A picture whose features are there already, as [`known_features`] found them.
    pub(super) fn known(pipeline: &Pipeline, features: Arc<CachedFeatures>) -> Result<Self, ApiError> {
        // Even of features that are shared: they may leave the cache before the reply is sent.
        pipeline.admitted.reserve(pipeline.extraction.map_bytes(features.image))?;
        Ok(Self { size: features.image, id: features.id(), features: Features::Found(features) })
    }

    /// Looks for the features of an uploaded picture; of one that is not known only the header is read.
    pub(super) async fn open(pipeline: &Pipeline, file: Bytes, form: MapsKind) -> Result<Self, ApiError> {
        let key = key_of(&file, pipeline.extraction.recipe()).await?;
        let id = key.id();
        if let Some(cache) = pipeline.app.cache()
            && let Some(found) = cache.find(id, form, served_here(&pipeline.app)).await
        {
            return Self::known(pipeline, found);
        }
        let header = probe(&file, &pipeline.decode_limits())?;
        pipeline.admitted.reserve(pipeline.extraction.map_bytes(header.size))?;
        let missing = Missing { file, header, key, has_place: false };
        Ok(Self { size: header.size, id, features: Features::Missing(missing) })
    }

    /// The features, in `form` or as their layers.
    pub(super) async fn features(self, pipeline: &Pipeline, form: MapsKind) -> Result<Arc<CachedFeatures>, ApiError> {
        let Some(cache) = pipeline.app.cache() else {
            return match self.features {
                Features::Found(found) => Ok(found),
                Features::Missing(missing) => pipeline.compute(missing).await.map(Arc::new),
            };
        };
        let found = match self.features {
            Features::Found(found) => found,
            Features::Missing(missing) => match pipeline.join_or_compute(cache, self.id, missing).await? {
                (features, Role::Started) => return Ok(features),
                (features, Role::Joined) => features,
            },
        };
        // What is asked for a second time may be asked for often.
        if form == MapsKind::Unit { pipeline.prepared(cache, found).await } else { Ok(found) }
    }
}

impl Pipeline {
    /// Takes places for those pictures that must be computed, and nobody else computes; at least so many.
    pub(super) fn take_places<'a>(
        &self,
        pictures: impl IntoIterator<Item = &'a mut Picture>,
        least: usize,
    ) -> Result<(), ApiError> {
        let mut count = 0;
        for picture in pictures {
            if let Features::Missing(missing) = &mut picture.features
                && !self.app.computations().is_running(&picture.id)
            {
                missing.has_place = true;
                count += 1;
            }
        }
        self.app.take_places(&self.admitted, count.max(least), self.context.deadline)
    }

    /// The pixels of an uploaded picture.
    pub(super) async fn pixels(&self, file: Bytes) -> Result<RgbImage, ApiError> {
        let limits = self.decode_limits();
        self.admitted.reserve(probe(&file, &limits)?.peak_bytes)?;
        self.on_cpu(Stage::Decode, move || Ok(decode(&file, &limits)?)).await
    }

    /// Waits for whoever computes these features, or computes them for all who wait. Another's failure for want of time
    /// or means is not taken for this request's: it then tries with its own.
    async fn join_or_compute(
        &self,
        cache: &FeatureCache,
        id: FeatureId,
        mut missing: Missing,
    ) -> Result<(Arc<CachedFeatures>, Role), ApiError> {
        let computations = self.app.computations();
        loop {
            if !missing.has_place && !computations.is_running(&id) {
                // Whoever computed them has ended a moment ago.
                if let Some(found) = cache.find_in_memory(id, MapsKind::Layers).await {
                    return Ok((found, Role::Joined));
                }
                self.app.take_places(&self.admitted, 1, self.context.deadline)?;
                missing.has_place = true;
            }
            let work = self.clone().compute_and_keep(cache.clone(), id, missing.clone());
            let (flight, role) = computations.join_or_start(id, work);
            if role == Role::Joined {
                cache.count_coalesced();
            }
            match flight.await {
                Ok(features) => return Ok((features, role)),
                Err(error) if role == Role::Joined && !error.concerns_every_sender() => {}
                Err(error) => return Err(ApiError::Shared(error)),
            }
        }
    }

    /// Features as [`MapsKind::Unit`], made once for all who want them, and kept.
    async fn prepared(
        &self,
        cache: &FeatureCache,
        features: Arc<CachedFeatures>,
    ) -> Result<Arc<CachedFeatures>, ApiError> {
        let id = features.id();
        // Another request may have brought them into it since.
        let features = cache.find_in_memory(id, MapsKind::Unit).await.unwrap_or(features);
        if features.kind() == MapsKind::Unit {
            return Ok(features);
        }
        let (pipeline, cache) = (self.clone(), cache.clone());
        let preparing = async move {
            let to_unit = move || Ok(Arc::new(features.to_unit().map_err(ApiError::internal)?));
            let unit = pipeline.on_cpu(Stage::Encode, to_unit).await.map_err(Arc::new)?;
            cache.insert(Arc::clone(&unit)).await;
            Ok(unit)
        };
        let (flight, _) = self.app.preparations().join_or_start(id, preparing);
        flight.await.map_err(ApiError::Shared)
    }

    async fn compute_and_keep(
        self,
        cache: FeatureCache,
        id: FeatureId,
        missing: Missing,
    ) -> Result<Arc<CachedFeatures>, Arc<ApiError>> {
        // Another computation may have ended between this request's look into the cache and now.
        if let Some(found) = cache.find_in_memory(id, MapsKind::Layers).await {
            return Ok(found);
        }
        let features = Arc::new(self.compute(missing).await.map_err(Arc::new)?);
        cache.insert(Arc::clone(&features)).await;
        Ok(features)
    }

    /// Decodes and resizes the picture on the CPU pool, after memory for all of it was set aside, and runs the model.
    async fn compute(&self, missing: Missing) -> Result<CachedFeatures, ApiError> {
        let Missing { file, header, key, .. } = missing;
        let extraction = &self.extraction;
        let input_bytes = extraction.input_bytes(header.size).saturating_add(header.peak_bytes);
        // The map is counted already; once more while it is made.
        let output_bytes = extraction.layers_bytes(header.size).saturating_add(extraction.map_bytes(header.size));
        self.admitted.reserve(input_bytes.saturating_add(output_bytes))?;
        let (limits, side_px) = (self.decode_limits(), self.extraction.side_px);
        let decoding = move || {
            let image = decode(&file, &limits)?;
            drop(file);
            Ok((ImageSize::from(image.dimensions()), model_input(&image, side_px).map_err(ApiError::internal)?))
        };
        let (image, input) = self.on_cpu(Stage::Decode, decoding).await?;
        let layers = self.infer(input).await?.into_iter();
        let maps = layers.map(|layer| FeatureMap::new(layer.channels, layer.height, layer.width, layer.data));
        let maps = maps.collect::<Result<_, _>>().map_err(ApiError::internal)?;
        Ok(CachedFeatures { key, image, maps: CachedMaps::Layers(maps) })
    }

    /// What a picture may cost.
    pub(super) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits { max_pixels: self.app.config().limits.max_pixels }
    }
}

/// Features that a request names by their id.
///
/// # Errors
/// [`ApiError::UnknownFeatureId`] if the text is no id, or nothing is kept under it, or what is kept is not of a model
/// that is served now.
pub(super) async fn known_features(app: &AppState, text: &str) -> Result<Arc<CachedFeatures>, ApiError> {
    let unknown = || ApiError::UnknownFeatureId { id: text.chars().take(64).collect() };
    let id = text.parse().map_err(|_| unknown())?;
    let cache = app.cache().ok_or_else(unknown)?;
    let found = cache.find(id, MapsKind::Unit, served_here(app)).await.ok_or_else(unknown)?;
    if served_model(app, &found.key.recipe).is_none() { Err(unknown()) } else { Ok(found) }
}

/// Whether entries of other processes are of a model that is served here, and as it computes them.
fn served_here(app: &AppState) -> EntryCheck {
    let app = app.clone();
    Arc::new(move |features| {
        let layers = served_model(&app, &features.key.recipe).ok_or(FeatureMismatch::Model)?;
        features.check_shapes(&layers)
    })
}

/// The layers of the very model of `recipe`, if it is served.
fn served_model(app: &AppState, recipe: &Recipe) -> Option<Vec<densecl_models::Layer>> {
    let registry = app.registry().ok()?;
    let model = registry.find(Some(&recipe.model), Some(recipe.version)).ok()?;
    (*model.digest() == recipe.digest).then(|| model.manifest().layers.clone())
}

async fn key_of(file: &Bytes, recipe: Arc<Recipe>) -> Result<FeatureKey, ApiError> {
    if file.len() <= HASHED_INLINE_BYTES {
        return Ok(FeatureKey::from_file(file, recipe));
    }
    let file = file.clone();
    let hashing = tokio::task::spawn_blocking(move || FeatureKey::from_file(&file, recipe));
    hashing.await.map_err(ApiError::internal)
}
