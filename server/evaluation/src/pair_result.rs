//! The result of one pair of images: scores, curves and an illustration.

use std::path::PathBuf;

use serde::Serialize;

use densecl_vision::features::PixelPoint;
use densecl_vision::image::ImageSize;

/// Name and unit of a measured quantity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// Stable name, for programs.
    pub id: String,
    /// Name for readers.
    pub label: String,
    /// The unit.
    pub unit: Unit,
}

/// Unit of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// A share, from 0 to 1.
    Share,
    /// Pixels of the target.
    Px,
    /// A count.
    Count,
}

/// A metric's value for one pair, and its weight in the mean over pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// The metric.
    pub metric: Metric,
    /// The value.
    pub value: f64,
    /// 1, or the number of points if the mean is over points.
    pub weight: f64,
}

/// The values of a curve for one pair: the share of points below each threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct CurveSample {
    /// The curve.
    pub curve: &'static Curve,
    /// One share for each threshold.
    pub shares: Vec<f64>,
}

/// Names and thresholds of a curve.
#[derive(Debug, PartialEq, Serialize)]
pub struct Curve {
    /// Stable name, for programs.
    pub id: &'static str,
    /// Label of the vertical axis.
    pub label: &'static str,
    /// Label of the horizontal axis.
    pub axis: &'static str,
    /// The thresholds, rising.
    pub thresholds: &'static [f64],
}

/// The result of one pair of images.
#[derive(Clone, Debug)]
pub struct PairResult {
    /// Name of the pair.
    pub name: String,
    /// Name of its sequence; the pair's own name if there is none.
    pub sequence: String,
    /// The group that it belongs to besides the group of all pairs.
    pub group: Option<String>,
    /// The scores. A metric that is undefined for this pair is missing.
    pub scores: Vec<Score>,
    /// The curves.
    pub curves: Vec<CurveSample>,
    /// The illustration.
    pub illustration: PairIllustration,
}

/// The images, matches and masks of a pair that a page can show.
#[derive(Clone, Debug)]
pub struct PairIllustration {
    /// File of the source image.
    pub source: PathBuf,
    /// File of the target image.
    pub target: PathBuf,
    /// Sizes of the source and the target.
    pub sizes: [ImageSize; 2],
    /// Matches with a smaller error are drawn as right.
    pub within_px: f64,
    /// Matches at even distances in their order.
    pub matches: Vec<MeasuredMatch>,
    /// The propagated mask, if the data set has masks.
    pub mask: Option<PropagatedMask>,
}

/// A match and its distance from the ground truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredMatch {
    /// Point of the source, in pixels.
    pub source: PixelPoint,
    /// Point of the target, in pixels.
    pub target: PixelPoint,
    /// Distance of `target` from the ground truth, in pixels; infinite if the ground truth is nowhere in the target.
    pub error_px: f64,
}

/// Propagated and true labels of the target's pixels, row by row.
#[derive(Clone, Debug)]
pub struct PropagatedMask {
    /// The propagated labels.
    pub found: Vec<u8>,
    /// The true labels.
    pub truth: Vec<u8>,
}

/// More lines than this hide each other.
const MAX_LINES: usize = 120;

impl Score {
    /// A score with weight 1.
    pub(super) fn new(id: impl Into<String>, label: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { metric: Metric { id: id.into(), label: label.into(), unit }, value, weight: 1.0 }
    }

    /// The score with another weight.
    pub(super) fn weighted(self, weight: f64) -> Self {
        Self { weight, ..self }
    }
}

impl PairResult {
    /// The value of the metric `id`.
    pub fn score(&self, id: &str) -> Option<f64> {
        self.scores.iter().find(|score| score.metric.id == id).map(|score| score.value)
    }
}

/// Selects at most [`MAX_LINES`] of `matches`, at even distances in their order.
pub(super) fn selection(matches: &[MeasuredMatch]) -> Vec<MeasuredMatch> {
    let count = matches.len().min(MAX_LINES);
    (0..count).filter_map(|drawn| matches.get(drawn * matches.len() / count).copied()).collect()
}
