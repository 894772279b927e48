//! Correspondences: points of a source image, or its labels, found in target images.

mod job;

use std::sync::Arc;

use bytes::Bytes;
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::image::{ImageSize, LabelPicture};
use densecl_vision::matching::{Cancellation, MatchOptions, VerifyOptions};
use futures_util::future::try_join_all;

pub(crate) use self::job::{Cost, MatchedFeatures, MatchedPicture, Outcome, TargetLabels, TargetMatches};
use self::job::{Job, Work};
use super::error::ServingError;
use super::extraction::{FeatureExtraction, RequestedImage};
use super::timings::Stage;
use crate::cache::{CachedFeatures, MapsKind};

/// What is to be found.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// Where points of the source are in the target; every cell if there are none.
    Matches { asked: Option<AskedPoints>, options: MatchOptions, verify: Option<VerifyOptions> },
    /// How similar points of the source are to every cell of the target.
    Heatmaps { asked: AskedPoints },
    /// The labels of the target.
    Labels,
}

/// Which points of the source, before its size is known.
#[derive(Clone, Debug)]
pub(crate) enum AskedPoints {
    Points(Vec<PixelPoint>),
    Grid { spacing_px: f64, max_points: usize },
}

impl AskedPoints {
    /// The points, which all lie in the image.
    pub(crate) fn within(self, image: ImageSize) -> Result<ImagePoints, ServingError> {
        match self {
            Self::Points(points) => Ok(ImagePoints::new(points, image)?),
            Self::Grid { spacing_px, max_points } => Ok(ImagePoints::grid(image, spacing_px, max_points)?),
        }
    }
}

/// Finds what is wanted in each target.
///
/// Before anything is computed `check` refuses what the reply cannot hold. Pixels are kept if `keep_pixels`, for a picture
/// of the matches.
///
/// # Errors
/// [`ServingError`]; it names the image that it is about.
pub(crate) async fn find(
    extraction: &FeatureExtraction,
    inputs: Inputs,
    wanted: Wanted,
    check: impl FnOnce(&Cost) -> Result<(), ServingError>,
    keep_pixels: bool,
) -> Result<Outcome, ServingError> {
    let incomplete =
        || ServingError::internal(anyhow::anyhow!("a request has a source, and a mask if labels are wanted"));
    let Opened { mut images, mask } = inputs.open(extraction).await?;
    let (source, targets) = images.split_first().ok_or_else(incomplete)?;
    let source = source.requested.size;
    let targets: Vec<_> = targets.iter().map(|target| target.requested.size).collect();
    let work = match (wanted, mask) {
        (Wanted::Matches { asked, options, verify }, _) => {
            let points = asked.map(|asked| asked.within(source)).transpose()?;
            Work::Matches { points, options, verify }
        }
        (Wanted::Heatmaps { asked }, _) => Work::Heatmaps { points: asked.within(source)? },
        (Wanted::Labels, Some(mask)) => Work::Labels { mask },
        (Wanted::Labels, None) => return Err(incomplete()),
    };
    let cost = work.cost(&extraction.selection, source, &targets)?;
    check(&cost)?;
    extraction.admitted.reserve(cost.memory_bytes)?;
    // Matching takes a turn, even if nothing is to be computed before.
    extraction.take_places(images.iter_mut().map(|image| &mut image.requested), 1)?;

    // All at once: images of equal shape share a run.
    let images = try_join_all(images.into_iter().map(|image| image.features(extraction, keep_pixels))).await?;
    let cancellation = CancelledOnDrop::default();
    let job = Job { work, images, cancellation: cancellation.0.clone() };
    extraction.on_cpu(Stage::Match, move || job.run()).await
}

/// Ends the work when the request is dropped: its client has gone, or its deadline has passed.
#[derive(Default)]
struct CancelledOnDrop(Cancellation);

impl Drop for CancelledOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The images of a request: the source first, then at least one target.
pub(crate) struct Inputs {
    pub(crate) images: Vec<Input>,
    pub(crate) mask: Option<Bytes>,
}

/// An image of a request.
pub(crate) enum Input {
    Upload(Bytes),
    Known(Arc<CachedFeatures>),
}

/// The images once their features are looked up, and the mask once it is decoded.
struct Opened {
    images: Vec<OpenedImage>,
    mask: Option<LabelPicture>,
}

struct OpenedImage {
    /// What it is called in an error.
    name: String,
    /// Of an uploaded image.
    file: Option<Bytes>,
    requested: RequestedImage,
}

impl Inputs {
    async fn open(self, extraction: &FeatureExtraction) -> Result<Opened, ServingError> {
        let count = self.images.len();
        let opening = self.images.into_iter().enumerate().map(async |(index, input)| {
            let name = match index {
                0 => "source".to_owned(),
                1 if count == 2 => "target".to_owned(),
                _ => format!("target[{}]", index - 1),
            };
            let (file, requested) = match input {
                Input::Known(features) => (None, RequestedImage::known(extraction, features)),
                Input::Upload(file) => {
                    (Some(file.clone()), RequestedImage::open(extraction, file, MapsKind::Unit).await)
                }
            };
            match requested {
                Ok(requested) => Ok(OpenedImage { name, file, requested }),
                Err(error) => Err(error.for_image(name)),
            }
        });
        let (images, mask) = tokio::try_join!(try_join_all(opening), decode_mask(extraction, self.mask))?;
        if let (Some(mask), Some(source)) = (&mask, images.first()) {
            let (found, expected) = (mask.size(), source.requested.size);
            if found != expected {
                return Err(ServingError::MaskSize { found, expected });
            }
        }
        Ok(Opened { images, mask })
    }
}

impl OpenedImage {
    /// The features, and the pixels if a picture is to be drawn of them.
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
    // Once as the file packs them, once unpacked.
    extraction.admitted.reserve(2 * size.pixels())?;
    let mask = extraction.on_cpu(Stage::Decode, move || Ok(LabelPicture::decode(&file, &limits)?)).await?;
    Ok(Some(mask))
}
