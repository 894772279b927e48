//! Features of several images at once.

use std::sync::Arc;

use bytes::Bytes;
use densecl_vision::features::{CropBox, ImagePoints, Layout, PixelPoint, Places, Rendering, Resolution, Window};
use densecl_vision::image::ImageSize;
use futures_util::future::try_join_all;

use super::error::ServingError;
use super::extraction::{FeatureExtraction, RequestedImage};
use crate::cache::{CachedFeatures, FeatureId, MapsKind};

/// Descriptors that are wanted of each image, before its size is known.
#[derive(Clone, Debug)]
pub(crate) struct WantedFeatures {
    pub(crate) places: WantedPlaces,
    /// Projected on so many principal components of the whole map.
    pub(crate) components: Option<usize>,
    /// Whether descriptors have length 1.
    pub(crate) unit: bool,
    pub(crate) layout: Layout,
}

/// Places of descriptors, before the size of the image is known.
#[derive(Clone, Debug)]
pub(crate) enum WantedPlaces {
    Points(Vec<PixelPoint>),
    Window { crop: Option<CropBox>, resolution: Resolution },
}

impl WantedFeatures {
    /// The form that the features must have.
    fn form(&self) -> MapsKind {
        if self.unit { MapsKind::Unit } else { MapsKind::Layers }
    }

    /// The rendering for an image of this size.
    fn rendering(&self, image: ImageSize) -> Result<Rendering, ServingError> {
        let places = match &self.places {
            WantedPlaces::Points(points) => Places::Points(ImagePoints::new(points.clone(), image)?),
            &WantedPlaces::Window { crop, resolution } => Places::Window(Window::new(image, crop, resolution)?),
        };
        Ok(Rendering { image, places, components: self.components, unit: self.unit, layout: self.layout })
    }
}

/// An image whose features are wanted.
pub(crate) struct WantedImage {
    pub(crate) id: FeatureId,
    pub(crate) rendering: Rendering,
}

/// Finds or computes the features of all images.
///
/// Before anything is computed `check` refuses what the reply cannot hold, and says how many bytes the reply takes beside
/// the maps.
///
/// # Errors
/// [`ServingError`]; of several images it names the one that it is about.
pub(crate) async fn extract(
    extraction: &FeatureExtraction,
    images: Vec<Bytes>,
    wanted: &WantedFeatures,
    check: impl FnOnce(&[WantedImage]) -> Result<u64, ServingError>,
) -> Result<Vec<(WantedImage, Arc<CachedFeatures>)>, ServingError> {
    let (form, several) = (wanted.form(), images.len() > 1);
    let for_image = |index, error: ServingError| numbered(several, index, error);
    let opening = images
        .into_iter()
        .enumerate()
        .map(async |(index, image)| open(extraction, wanted, image).await.map_err(|error| for_image(index, error)));
    let (wanted, mut requested): (Vec<_>, Vec<_>) = try_join_all(opening).await?.into_iter().unzip();
    extraction.admitted.reserve(check(&wanted)?)?;
    extraction.take_places(&mut requested, 0)?;
    // All at once: images of equal shape share a run.
    let computing = requested
        .into_iter()
        .enumerate()
        .map(async |(index, image)| image.features(extraction, form).await.map_err(|error| for_image(index, error)));
    let features = try_join_all(computing).await?;
    Ok(wanted.into_iter().zip(features).collect())
}

/// Names the image that an error is about, if there are `several`.
pub(crate) fn numbered(several: bool, index: usize, error: ServingError) -> ServingError {
    if several { error.for_image(format!("images[{index}]")) } else { error }
}

async fn open(
    extraction: &FeatureExtraction,
    wanted: &WantedFeatures,
    image: Bytes,
) -> Result<(WantedImage, RequestedImage), ServingError> {
    let image = RequestedImage::open(extraction, image, wanted.form()).await?;
    Ok((WantedImage { id: image.id, rendering: wanted.rendering(image.size)? }, image))
}
