//! Features of the images of one request.

use std::sync::Arc;

use bytes::Bytes;
use densecl_vision::features::{
    CropBox, FeatureMap, ImagePoints, Layout, PixelPoint, Places, Pooling, Rendering, Resolution, Window,
};
use densecl_vision::image::ImageSize;
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::error::ServingError;
use super::extraction::{FeatureExtraction, RequestedImage};
use super::timings::Stage;
use crate::cache::{CachedFeatures, FeatureId, MapsKind};

/// Images of one request that are computed at the same time: as many as run together, and fewer than may wait for it.
const COMPUTED_TOGETHER: usize = 32;

/// Requested descriptors of each image, before its size is known.
#[derive(Clone, Debug)]
pub(crate) struct RequestedFeatures {
    pub(crate) places: RequestedPlaces,
    /// Number of principal components of the whole map that descriptors are projected on.
    pub(crate) components: Option<usize>,
    /// True if descriptors, or the vector, have length 1.
    pub(crate) unit: bool,
    pub(crate) layout: Layout,
}

/// Positions of requested descriptors, before the size of the image is known.
#[derive(Clone, Debug)]
pub(crate) enum RequestedPlaces {
    Points(Vec<PixelPoint>),
    Window {
        crop: Option<CropBox>,
        resolution: Resolution,
    },
    /// None, but one vector of all cells whose centres are in the crop.
    Pooled {
        crop: Option<CropBox>,
        pooling: Pooling,
    },
}

impl RequestedFeatures {
    /// The form that the features must have.
    fn form(&self) -> MapsKind {
        match self.places {
            RequestedPlaces::Points(_) | RequestedPlaces::Window { .. } if self.unit => MapsKind::Unit,
            // What is pooled are the values of the model.
            RequestedPlaces::Points(_) | RequestedPlaces::Window { .. } | RequestedPlaces::Pooled { .. } => {
                MapsKind::Layers
            }
        }
    }

    /// True if each image becomes one vector.
    pub(crate) fn is_vector(&self) -> bool {
        matches!(self.places, RequestedPlaces::Pooled { .. })
    }

    /// The rendering for an image of this size.
    fn rendering(&self, image: ImageSize) -> Result<Rendering, ServingError> {
        let places = match &self.places {
            RequestedPlaces::Points(points) => Places::Points(ImagePoints::new(points.clone(), image)?),
            &RequestedPlaces::Window { crop, resolution } => Places::Window(Window::new(image, crop, resolution)?),
            &RequestedPlaces::Pooled { crop, pooling } => {
                Places::Pooled(Window::new(image, crop, Resolution::Grid)?, pooling)
            }
        };
        Ok(Rendering { image, places, components: self.components, unit: self.unit, layout: self.layout })
    }
}

/// An image of the request, and the rendering of its features.
pub(crate) struct ImageRendering {
    pub(crate) id: FeatureId,
    pub(crate) rendering: Rendering,
}

impl ImageRendering {
    /// Stacks the layers to one map: of unit descriptors if the rendering takes them, otherwise of the model's output.
    pub(crate) fn stacked_map(&self, features: &CachedFeatures) -> Result<FeatureMap, ServingError> {
        if self.rendering.takes_unit_map() {
            return Ok(features.unit_map().map_err(ServingError::internal)?.into_map());
        }
        let raw = features.raw_map().map_err(ServingError::internal)?;
        raw.ok_or_else(|| ServingError::internal(anyhow::anyhow!("the cache returned unit features instead of layers")))
    }

    /// The vector of the image, `[C]`.
    fn vector(&self, features: &CachedFeatures) -> Result<Vec<f32>, ServingError> {
        let vector = self.rendering.render(self.stacked_map(features)?)?;
        let mut values = Vec::new();
        vector.append(0..vector.shape().iter().product(), &mut values);
        Ok(values)
    }
}

/// Finds or computes the features of all images.
///
/// Before anything is computed, `check` refuses a reply that is too large, and returns the bytes that the reply takes
/// beside the maps.
///
/// # Errors
/// [`ServingError`], which names the image if there are several.
pub(crate) async fn extract(
    extraction: &FeatureExtraction,
    images: Vec<Bytes>,
    requested: &RequestedFeatures,
    check: impl FnOnce(&[ImageRendering]) -> Result<u64, ServingError>,
) -> Result<Vec<(ImageRendering, Arc<CachedFeatures>)>, ServingError> {
    let (form, several) = (requested.form(), images.len() > 1);
    let (renderings, images) = admit(extraction, images, requested, check).await?;
    // Concurrently, so that images of equal shape are batched.
    let computing = images.into_iter().enumerate().map(async |(index, image)| {
        let features = image.features(extraction, form).await;
        features.map_err(|error| name_image_if_several(several, index, error))
    });
    let features: Vec<_> = stream::iter(computing).buffered(COMPUTED_TOGETHER).try_collect().await?;
    Ok(renderings.into_iter().zip(features).collect())
}

/// [`extract`] for a request of vectors: `[C]` for each image, in their order. A map is dropped as soon as it is pooled.
///
/// # Errors
/// [`ServingError`], which names the image if there are several.
pub(crate) async fn pool(
    extraction: &FeatureExtraction,
    images: Vec<Bytes>,
    requested: &RequestedFeatures,
    check: impl FnOnce(&[ImageRendering]) -> Result<u64, ServingError>,
) -> Result<Vec<(ImageRendering, Vec<f32>)>, ServingError> {
    let (form, several) = (requested.form(), images.len() > 1);
    let (renderings, images) = admit(extraction, images, requested, check).await?;
    let pooling = renderings.into_iter().zip(images).enumerate().map(async |(index, (rendering, image))| {
        let vector = async {
            let features = image.features(extraction, form).await?;
            let pool = move || Ok((rendering.vector(&features)?, rendering));
            extraction.on_cpu(Stage::Encode, pool).await
        };
        let (vector, rendering) = vector.await.map_err(|error| name_image_if_several(several, index, error))?;
        Ok((rendering, vector))
    });
    stream::iter(pooling).buffered(COMPUTED_TOGETHER).try_collect().await
}

/// Looks for the features of all images, and takes memory and slots for what must be computed.
async fn admit(
    extraction: &FeatureExtraction,
    images: Vec<Bytes>,
    requested: &RequestedFeatures,
    check: impl FnOnce(&[ImageRendering]) -> Result<u64, ServingError>,
) -> Result<(Vec<ImageRendering>, Vec<RequestedImage>), ServingError> {
    let several = images.len() > 1;
    let looking_up = images.into_iter().enumerate().map(async |(index, image)| {
        let found = look_up(extraction, requested, image).await;
        found.map_err(|error| name_image_if_several(several, index, error))
    });
    let (renderings, mut images): (Vec<_>, Vec<_>) = try_join_all(looking_up).await?.into_iter().unzip();
    extraction.admitted.reserve(check(&renderings)?)?;
    extraction.take_slots(&mut images, 0)?;
    Ok((renderings, images))
}

/// Adds the name of the image to an error if there are `several`, or if its bytes cannot be decoded.
pub(crate) fn name_image_if_several(several: bool, index: usize, error: ServingError) -> ServingError {
    if several {
        error.for_image(format!("images[{index}]"))
    } else if error.is_about_bytes() {
        error.for_image("image".to_owned())
    } else {
        error
    }
}

async fn look_up(
    extraction: &FeatureExtraction,
    requested: &RequestedFeatures,
    image: Bytes,
) -> Result<(ImageRendering, RequestedImage), ServingError> {
    let image = RequestedImage::look_up(extraction, image, requested.form()).await?;
    Ok((ImageRendering { id: image.id, rendering: requested.rendering(image.size)? }, image))
}
