//! What is computed for `POST /correspondence` once all features are there, and what that costs.

use std::sync::Arc;

use super::correspondence_parameters::CorrespondenceFormat;
use super::pipeline::Extraction;
use crate::cache::{CachedFeatures, FeatureId};
use crate::error::ApiError;
use densecl_vision::features::{ImagePoints, NormalizedMap};
use densecl_vision::image::{ImageSize, LabelPicture, LabelStyle, RgbImage};
use densecl_vision::matching::{
    Cancellation, ImagePair, MatchError, MatchOptions, MatchedImage, PointMatch, Queries, SimilarityMaps, Verification,
    VerifyOptions, find_correspondences, propagate_labels, verify,
};

/// Multiply-adds that one request may cost in matching. A match of every cell with every cell grows with the fourth
/// power of `side`; this keeps it within two or three seconds on two cores.
const MAX_MULTIPLICATIONS: u64 = 1 << 38;
/// What it costs to compare a similarity with others once it is computed, in multiply-adds: measured, more than computing
/// it from the 64 channels of the finest layers.
const COMPARISON_COST: u64 = 128;

/// One of the images.
pub(super) struct Side {
    /// Kept for a picture of the matches only.
    pub(super) image: Option<RgbImage>,
    pub(super) size: ImageSize,
    pub(super) id: FeatureId,
}

/// What is to be computed.
pub(super) enum Work {
    /// Where the points are; every cell if there are none.
    Matches {
        points: Option<ImagePoints>,
        options: MatchOptions,
        verify: Option<VerifyOptions>,
    },
    Heatmaps {
        points: ImagePoints,
    },
    Labels {
        mask: LabelPicture,
    },
}

/// What it costs, by what the manifest says of the maps.
pub(super) struct Cost {
    /// Rows of the result, in all targets together.
    rows: u64,
    candidates: u64,
    heatmap_values: u64,
    label_pixels: u64,
    pub(super) memory_bytes: u64,
}

impl Work {
    /// Refuses what would take too long.
    pub(super) fn cost(
        &self,
        extraction: &Extraction,
        source: ImageSize,
        targets: &[ImageSize],
    ) -> Result<Cost, ApiError> {
        let cells = |image: ImageSize| extraction.expected_map(image).1.cells() as u64;
        let channels = extraction.expected_map(source).0 as u64;
        let target_cells: u64 = targets.iter().map(|&target| cells(target)).sum();
        let (queries, top_k) = match self {
            Self::Matches { points: Some(points), options, .. } => (points.len() as u64, options.top_k.get() as u64),
            Self::Matches { points: None, options, .. } => (cells(source), options.top_k.get() as u64),
            Self::Heatmaps { points } => (points.len() as u64, 0),
            Self::Labels { .. } => (cells(source), 0),
        };
        let limit = MAX_MULTIPLICATIONS / (channels + COMPARISON_COST);
        // Heatmaps are computed while they are sent; the limit on the reply bounds them.
        let comparisons = if matches!(self, Self::Heatmaps { .. }) { 0 } else { queries.saturating_mul(target_cells) };
        if comparisons > limit {
            return Err(ApiError::TooManyComparisons { count: queries, cells: target_cells, limit });
        }
        Ok(Cost::new(queries, top_k, target_cells, targets, matches!(self, Self::Labels { .. })))
    }
}

impl Cost {
    fn new(queries: u64, top_k: u64, target_cells: u64, targets: &[ImageSize], is_labels: bool) -> Self {
        /// A peak, the candidate that it becomes, and its text.
        const CANDIDATE_BYTES: u64 = 120 + 24 + 80;
        let rows = queries.saturating_mul(targets.len() as u64);
        let candidates = rows.saturating_mul(top_k);
        let label_pixels = if is_labels { targets.iter().map(|target| target.pixels()).sum() } else { 0 };
        let memory_bytes = candidates.saturating_mul(CANDIDATE_BYTES).saturating_add(2 * label_pixels);
        Self { rows, candidates, heatmap_values: queries.saturating_mul(target_cells), label_pixels, memory_bytes }
    }

    /// Refuses a reply that would be too large.
    pub(super) fn check(&self, format: CorrespondenceFormat, max_bytes: u64) -> Result<(), ApiError> {
        /// What JSON writes of a match but its candidates, and of a candidate, at most.
        const MATCH_TEXT_BYTES: u64 = 200;
        const CANDIDATE_TEXT_BYTES: u64 = 80;
        let bytes = match format {
            CorrespondenceFormat::Json => {
                self.rows * MATCH_TEXT_BYTES + self.candidates.saturating_mul(CANDIDATE_TEXT_BYTES)
            }
            CorrespondenceFormat::Heatmap => self.heatmap_values.saturating_mul(4),
            CorrespondenceFormat::Npy | CorrespondenceFormat::Safetensors if self.label_pixels > 0 => self.label_pixels,
            // Five floats and a flag.
            CorrespondenceFormat::Npy | CorrespondenceFormat::Safetensors => self.rows.saturating_mul(21),
            // Of bounded size, or as large as a picture that was accepted.
            CorrespondenceFormat::Png => 0,
        };
        if bytes > max_bytes {
            return Err(ApiError::ReplyTooLarge { bytes, limit: max_bytes });
        }
        Ok(())
    }
}

/// The work, and the features of the source and of each target.
pub(super) struct Job {
    pub(super) work: Work,
    pub(super) images: Vec<(Side, Arc<CachedFeatures>)>,
    pub(super) cancellation: Cancellation,
}

/// What comes of it.
pub(super) enum Outcome {
    Matches { source: Described, targets: Vec<TargetMatches>, points: Option<ImagePoints> },
    Heatmaps(SimilarityMaps),
    Labels { targets: Vec<TargetLabels>, style: LabelStyle },
}

/// An image and its features.
pub(super) struct Described {
    pub(super) side: Side,
    pub(super) map: NormalizedMap,
}

/// What was found in a target.
pub(super) struct TargetMatches {
    pub(super) target: Described,
    pub(super) matches: Vec<PointMatch>,
    pub(super) verification: Option<Verification>,
}

/// The label of every pixel of a target.
pub(super) struct TargetLabels {
    pub(super) size: ImageSize,
    pub(super) labels: Vec<u8>,
}

impl Described {
    fn new((side, features): (Side, Arc<CachedFeatures>)) -> Result<Self, ApiError> {
        Ok(Self { side, map: features.unit_map().map_err(ApiError::internal)? })
    }

    fn as_match_side(&self) -> MatchedImage<'_> {
        MatchedImage { map: &self.map, image: self.side.size }
    }
}

impl Job {
    pub(super) fn run(self) -> Result<Outcome, ApiError> {
        let Self { work, images, cancellation } = self;
        let mut images = images.into_iter();
        let missing = || ApiError::internal(anyhow::anyhow!("a job has a source and a target"));
        let source = Described::new(images.next().ok_or_else(missing)?)?;
        match work {
            Work::Matches { points, options, verify } => {
                let search = Search { points: points.as_ref(), options, verify };
                let targets = images.map(|target| Ok(search.run(&source, Described::new(target)?, &cancellation)?));
                let targets = targets.collect::<Result<_, ApiError>>()?;
                Ok(Outcome::Matches { source, targets, points })
            }
            Work::Heatmaps { points } => {
                let target = Described::new(images.next().ok_or_else(missing)?)?;
                Ok(Outcome::Heatmaps(SimilarityMaps::new(source.as_match_side(), &points, target.map)?))
            }
            Work::Labels { mask } => {
                let carried_over = |target: Described| {
                    let pair = ImagePair { source: source.as_match_side(), target: target.as_match_side() };
                    let labels = propagate_labels(pair, mask.labels(), &cancellation)?;
                    Ok(TargetLabels { size: target.side.size, labels })
                };
                let targets = images.map(|target| carried_over(Described::new(target)?));
                let targets = targets.collect::<Result<_, ApiError>>()?;
                Ok(Outcome::Labels { targets, style: mask.style().clone() })
            }
        }
    }
}

/// What is looked for in each target.
struct Search<'a> {
    points: Option<&'a ImagePoints>,
    options: MatchOptions,
    verify: Option<VerifyOptions>,
}

impl Search<'_> {
    fn run(
        &self,
        source: &Described,
        target: Described,
        cancellation: &Cancellation,
    ) -> Result<TargetMatches, MatchError> {
        let pair = ImagePair { source: source.as_match_side(), target: target.as_match_side() };
        let queries = self.points.map_or(Queries::Cells, Queries::Points);
        let mut matches = find_correspondences(pair, queries, &self.options, cancellation)?;
        let verification =
            self.verify.map(|options| verify(&mut matches, pair.into(), &options, cancellation)).transpose()?;
        Ok(TargetMatches { target, matches, verification })
    }
}
