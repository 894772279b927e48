//! Matching of computed features, and its cost, which is known before the features are computed.

use std::sync::Arc;

use densecl_vision::features::{ImagePoints, NormalizedMap};
use densecl_vision::image::{ImageSize, LabelPicture, LabelStyle, RgbImage};
use densecl_vision::matching::{
    Cancellation, ImagePair, MatchError, MatchOptions, MatchedImage, PointMatch, Queries, SimilarityMaps, Verification,
    VerifyOptions, find_correspondences, propagate_labels, verify,
};

use crate::cache::{CachedFeatures, FeatureId};
use crate::serving::{Selection, ServingError};

/// Multiply-adds that one request may cost in matching. A match of every cell with every cell grows with the fourth
/// power of `side`; this keeps it within two or three seconds on two cores.
const MAX_MULTIPLICATIONS: u64 = 1 << 38;
/// Cost of comparing a computed similarity with others, in multiply-adds. Measured: it is more than computing the
/// similarity of the 64 channels of the finest layers.
const COMPARISON_COST: u64 = 128;

/// An image of a request.
pub(crate) struct MatchedPicture {
    /// Kept only to draw the matches.
    pub(crate) pixels: Option<RgbImage>,
    pub(crate) size: ImageSize,
    pub(crate) id: FeatureId,
}

/// A [`CorrespondenceTask`](super::CorrespondenceTask) whose points lie in the source and whose mask is decoded.
pub(crate) enum ResolvedTask {
    /// Matches of the points; of every cell of the source if `None`.
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

/// Cost of a task, by the shapes of the manifest.
pub(crate) struct Cost {
    /// Number of matches in all targets.
    pub(crate) rows: u64,
    /// Number of candidates of all matches.
    pub(crate) candidates: u64,
    /// Number of similarities of all heatmaps.
    pub(crate) heatmap_values: u64,
    /// Number of pixels of all label maps; 0 unless labels are carried over.
    pub(crate) label_pixels: u64,
    pub(crate) memory_bytes: u64,
}

impl ResolvedTask {
    /// Computes the cost.
    ///
    /// # Errors
    /// [`ServingError::TooManyComparisons`] if the task would take too long.
    pub(crate) fn cost(
        &self,
        selection: &Selection,
        source: ImageSize,
        targets: &[ImageSize],
    ) -> Result<Cost, ServingError> {
        let cells = |image: ImageSize| selection.expected_map(image).1.cells() as u64;
        let channels = selection.expected_map(source).0 as u64;
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
            return Err(ServingError::TooManyComparisons { count: queries, cells: target_cells, limit });
        }
        Ok(Cost::new(queries, top_k, target_cells, targets, matches!(self, Self::Labels { .. })))
    }
}

impl Cost {
    fn new(queries: u64, top_k: u64, target_cells: u64, targets: &[ImageSize], is_labels: bool) -> Self {
        /// Bytes of a peak, its candidate and its text.
        const CANDIDATE_BYTES: u64 = 120 + 24 + 80;
        let rows = queries.saturating_mul(targets.len() as u64);
        let candidates = rows.saturating_mul(top_k);
        let label_pixels = if is_labels { targets.iter().map(|target| target.pixels()).sum() } else { 0 };
        let memory_bytes = candidates.saturating_mul(CANDIDATE_BYTES).saturating_add(2 * label_pixels);
        Self { rows, candidates, heatmap_values: queries.saturating_mul(target_cells), label_pixels, memory_bytes }
    }
}

/// A task, and the features of the source and of each target.
pub(crate) struct Job {
    pub(crate) task: ResolvedTask,
    pub(crate) images: Vec<(MatchedPicture, Arc<CachedFeatures>)>,
    pub(crate) cancellation: Cancellation,
}

/// Result of a job.
pub(crate) enum Outcome {
    Matches { source: MatchedFeatures, targets: Vec<TargetMatches>, points: Option<ImagePoints> },
    Heatmaps(SimilarityMaps),
    Labels { targets: Vec<TargetLabels>, style: LabelStyle },
}

/// An image and its features.
pub(crate) struct MatchedFeatures {
    pub(crate) image: MatchedPicture,
    pub(crate) map: NormalizedMap,
}

/// Matches in a target.
pub(crate) struct TargetMatches {
    pub(crate) target: MatchedFeatures,
    pub(crate) matches: Vec<PointMatch>,
    pub(crate) verification: Option<Verification>,
}

/// The label of every pixel of a target.
pub(crate) struct TargetLabels {
    pub(crate) size: ImageSize,
    pub(crate) labels: Vec<u8>,
}

impl MatchedFeatures {
    fn new((image, features): (MatchedPicture, Arc<CachedFeatures>)) -> Result<Self, ServingError> {
        Ok(Self { image, map: features.unit_map().map_err(ServingError::internal)? })
    }

    fn as_match_side(&self) -> MatchedImage<'_> {
        MatchedImage { map: &self.map, image: self.image.size }
    }
}

impl Job {
    pub(crate) fn run(self) -> Result<Outcome, ServingError> {
        let Self { task, images, cancellation } = self;
        let mut images = images.into_iter();
        let missing = || ServingError::internal(anyhow::anyhow!("a job has a source and a target"));
        let source = MatchedFeatures::new(images.next().ok_or_else(missing)?)?;
        match task {
            ResolvedTask::Matches { points, options, verify } => {
                let search = Search { points: points.as_ref(), options, verify };
                let targets =
                    images.map(|target| Ok(search.run(&source, MatchedFeatures::new(target)?, &cancellation)?));
                let targets = targets.collect::<Result<_, ServingError>>()?;
                Ok(Outcome::Matches { source, targets, points })
            }
            ResolvedTask::Heatmaps { points } => {
                let target = MatchedFeatures::new(images.next().ok_or_else(missing)?)?;
                Ok(Outcome::Heatmaps(SimilarityMaps::new(source.as_match_side(), &points, target.map)?))
            }
            ResolvedTask::Labels { mask } => {
                let carried_over = |target: MatchedFeatures| {
                    let pair = ImagePair { source: source.as_match_side(), target: target.as_match_side() };
                    let labels = propagate_labels(pair, mask.labels(), &cancellation)?;
                    Ok(TargetLabels { size: target.image.size, labels })
                };
                let targets = images.map(|target| carried_over(MatchedFeatures::new(target)?));
                let targets = targets.collect::<Result<_, ServingError>>()?;
                Ok(Outcome::Labels { targets, style: mask.style().clone() })
            }
        }
    }
}

/// The search for the points in each target.
struct Search<'a> {
    points: Option<&'a ImagePoints>,
    options: MatchOptions,
    verify: Option<VerifyOptions>,
}

impl Search<'_> {
    fn run(
        &self,
        source: &MatchedFeatures,
        target: MatchedFeatures,
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
