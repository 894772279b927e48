//! Features of the images of one request.

use std::sync::Arc;

use bytes::Bytes;
use densecl_vision::features::{CropBox, ImagePoints, Layout, PixelPoint, Places, Rendering, Resolution, Window};
use densecl_vision::image::ImageSize;
use futures_util::future::try_join_all;

use super::error::ServingError;
use super::extraction::{FeatureExtraction, RequestedImage};
use crate::cache::{CachedFeatures, FeatureId, MapsKind};

/// Requested descriptors of each image, before its size is known.
#[derive(Clone, Debug)]
pub(crate) struct RequestedFeatures {
    pub(crate) places: RequestedPlaces,
    /// Number of principal components of the whole map that descriptors are projected on.
    pub(crate) components: Option<usize>,
    /// True if descriptors have length 1.
    pub(crate) unit: bool,
    pub(crate) layout: Layout,
}

/// Positions of requested descriptors, before the size of the image is known.
#[derive(Clone, Debug)]
pub(crate) enum RequestedPlaces {
    Points(Vec<PixelPoint>),
    Window { crop: Option<CropBox>, resolution: Resolution },
}

impl RequestedFeatures {
    /// The form that the features must have.
    fn form(&self) -> MapsKind {
        if self.unit { MapsKind::Unit } else { MapsKind::Layers }
    }

    /// The rendering for an image of this size.
    fn rendering(&self, image: ImageSize) -> Result<Rendering, ServingError> {
        let places = match &self.places {
            RequestedPlaces::Points(points) => Places::Points(ImagePoints::new(points.clone(), image)?),
            &RequestedPlaces::Window { crop, resolution } => Places::Window(Window::new(image, crop, resolution)?),
        };
        Ok(Rendering { image, places, components: self.components, unit: self.unit, layout: self.layout })
    }
}

/// An image of the request, and the rendering of its features.
pub(crate) struct ImageRendering {
    pub(crate) id: FeatureId,
    pub(crate) rendering: Rendering,
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
    let for_image = |index, error: ServingError| name_image_if_several(several, index, error);
    let looking_up = images.into_iter().enumerate().map(async |(index, image)| {
        look_up(extraction, requested, image).await.map_err(|error| for_image(index, error))
    });
    let (renderings, mut images): (Vec<_>, Vec<_>) = try_join_all(looking_up).await?.into_iter().unzip();
    extraction.admitted.reserve(check(&renderings)?)?;
    extraction.take_slots(&mut images, 0)?;
    // Concurrently, so that images of equal shape are batched.
    let computing = images
        .into_iter()
        .enumerate()
        .map(async |(index, image)| image.features(extraction, form).await.map_err(|error| for_image(index, error)));
    let features = try_join_all(computing).await?;
    Ok(renderings.into_iter().zip(features).collect())
}

/// Adds the name of the image to an error if there are `several`.
pub(crate) fn name_image_if_several(several: bool, index: usize, error: ServingError) -> ServingError {
    if several { error.for_image(format!("images[{index}]")) } else { error }
}

async fn look_up(
    extraction: &FeatureExtraction,
    requested: &RequestedFeatures,
    image: Bytes,
) -> Result<(ImageRendering, RequestedImage), ServingError> {
    let image = RequestedImage::look_up(extraction, image, requested.form()).await?;
    Ok((ImageRendering { id: image.id, rendering: requested.rendering(image.size)? }, image))
}
