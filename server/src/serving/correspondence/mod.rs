//! Correspondences: finds points of a source image, or its labels, in target images.

mod job;

use std::sync::Arc;

use bytes::Bytes;
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::image::{ImageSize, LabelPicture};
use densecl_vision::matching::{Cancellation, MatchOptions, VerifyOptions};
use futures_util::future::try_join_all;

pub(crate) use self::job::{Cost, MatchedFeatures, MatchedPicture, Outcome, TargetLabels, TargetMatches};
use self::job::{Job, ResolvedTask};
use super::error::ServingError;
use super::extraction::{FeatureExtraction, RequestedImage};
use super::timings::Stage;
use crate::cache::{CachedFeatures, MapsKind};

/// The result that a request asks for, before the size of the source is known.
#[derive(Clone, Debug)]
pub(crate) enum CorrespondenceTask {
    /// Positions of the source's points in the target; of every cell if `None`.
    Matches { points: Option<RequestedPoints>, options: MatchOptions, verify: Option<VerifyOptions> },
    /// Similarities of the source's points with every cell of the target.
    Heatmaps { points: RequestedPoints },
    /// Labels of the target's pixels.
    Labels,
}

/// Requested points of the source, before its size is known.
#[derive(Clone, Debug)]
pub(crate) enum RequestedPoints {
    Points(Vec<PixelPoint>),
    Grid { spacing_px: f64, max_points: usize },
}

impl RequestedPoints {
    /// Returns the points, after a check that all lie in the image.
    pub(crate) fn within(self, image: ImageSize) -> Result<ImagePoints, ServingError> {
        match self {
            Self::Points(points) => Ok(ImagePoints::new(points, image)?),
            Self::Grid { spacing_px, max_points } => Ok(ImagePoints::grid(image, spacing_px, max_points)?),
        }
    }
}

/// Runs a task on the images of a request.
///
/// Before anything is computed, `check` refuses a reply that is too large. Pixels are kept if `keep_pixels`, to draw
/// the matches.
///
/// # Errors
/// [`ServingError`], which names the image that it is about.
pub(crate) async fn find(
    extraction: &FeatureExtraction,
    images: CorrespondenceImages,
    task: CorrespondenceTask,
    check: impl FnOnce(&Cost) -> Result<(), ServingError>,
    keep_pixels: bool,
) -> Result<Outcome, ServingError> {
    let incomplete = || ServingError::internal(anyhow::anyhow!("the request has no source, or no mask for labels"));
    let PreparedImages { mut images, mask } = images.prepare(extraction).await?;
    let (source, targets) = images.split_first().ok_or_else(incomplete)?;
    let source = source.requested.size;
    let targets: Vec<_> = targets.iter().map(|target| target.requested.size).collect();
    let task = match (task, mask) {
        (CorrespondenceTask::Matches { points, options, verify }, _) => {
            let points = points.map(|points| points.within(source)).transpose()?;
            ResolvedTask::Matches { points, options, verify }
        }
        (CorrespondenceTask::Heatmaps { points }, _) => ResolvedTask::Heatmaps { points: points.within(source)? },
        (CorrespondenceTask::Labels, Some(mask)) => ResolvedTask::Labels { mask },
        (CorrespondenceTask::Labels, None) => return Err(incomplete()),
    };
    let cost = task.cost(&extraction.selection, source, &targets)?;
    check(&cost)?;
    extraction.admitted.reserve(cost.memory_bytes)?;
    // Matching takes a slot even if all features are cached.
    extraction.take_slots(images.iter_mut().map(|image| &mut image.requested), 1)?;

    // Concurrently, so that images of equal shape are batched.
    let images = try_join_all(images.into_iter().map(|image| image.features(extraction, keep_pixels))).await?;
    let cancellation = CancelledOnDrop::default();
    let job = Job { task, images, cancellation: cancellation.0.clone() };
    extraction.on_cpu(Stage::Match, move || job.run()).await
}

/// Cancels the job when the request is dropped, because its client has disconnected or its deadline has passed.
#[derive(Default)]
struct CancelledOnDrop(Cancellation);

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The images of a request: the source first, then at least one target.
pub(crate) struct CorrespondenceImages {
    pub(crate) images: Vec<ImageSource>,
    pub(crate) mask: Option<Bytes>,
}

/// An image of a request.
pub(crate) enum ImageSource {
    Upload(Bytes),
    /// Features that the request names by an id.
    Cached(Arc<CachedFeatures>),
}

/// Images whose features have been looked up, and the decoded mask.
struct PreparedImages {
    images: Vec<PreparedImage>,
    mask: Option<LabelPicture>,
}

struct PreparedImage {
    /// Name in errors.
    name: String,
    /// The file, if the image was uploaded.
    file: Option<Bytes>,
    requested: RequestedImage,
}

impl CorrespondenceImages {
    async fn prepare(self, extraction: &FeatureExtraction) -> Result<PreparedImages, ServingError> {
        let count = self.images.len();
        let preparing = self.images.into_iter().enumerate().map(async |(index, image)| {
            let name = match index {
                0 => "source".to_owned(),
                1 if count == 2 => "target".to_owned(),
                _ => format!("target[{}]", index - 1),
            };
            let (file, requested) = match image {
                ImageSource::Cached(features) => (None, RequestedImage::from_features(extraction, features)),
                ImageSource::Upload(file) => {
                    (Some(file.clone()), RequestedImage::look_up(extraction, file, MapsKind::Unit).await)
                }
            };
            match requested {
                Ok(requested) => Ok(PreparedImage { name, file, requested }),
                Err(error) => Err(error.for_image(name)),
            }
        });
        let (images, mask) = tokio::try_join!(try_join_all(preparing), decode_mask(extraction, self.mask))?;
        if let (Some(mask), Some(source)) = (&mask, images.first()) {
            let (found, expected) = (mask.size(), source.requested.size);
            if found != expected {
                return Err(ServingError::MaskSize { found, expected });
            }
        }
        Ok(PreparedImages { images, mask })
    }
}

impl PreparedImage {
    /// Returns the features, and the pixels if `keep_pixels`.
    async fn features(
        self,
        extraction: &FeatureExtraction,
        keep_pixels: bool,
    ) -> Result<(MatchedPicture, Arc<CachedFeatures>), ServingError> {
        let Self { name, file, requested } = self;
        let (size, id) = (requested.size, requested.id);
        let pixels = async {
            match file.filter(|_| keep_pixels) {
                Some(file) => extraction.pixels(file).await.map(Some),
                None => Ok(None),
            }
        };
        let (features, pixels) = tokio::try_join!(requested.features(extraction, MapsKind::Unit), pixels)
            .map_err(|error| error.for_image(name))?;
        Ok((MatchedPicture { pixels, size, id }, features))
    }
}

async fn decode_mask(
    extraction: &FeatureExtraction,
    file: Option<Bytes>,
) -> Result<Option<LabelPicture>, ServingError> {
    let Some(file) = file else { return Ok(None) };
    let limits = extraction.decode_limits();
    let size = LabelPicture::probe(&file, &limits)?;
    // The packed pixels of the file, and the unpacked ones.
    extraction.admitted.reserve(2 * size.pixels())?;
    let mask = extraction.on_cpu(Stage::Decode, move || Ok(LabelPicture::decode(&file, &limits)?)).await?;
    Ok(Some(mask))
}
