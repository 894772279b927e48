//! What is measured on one pair of pictures.

use std::path::PathBuf;

use serde::Serialize;

use densecl_vision::features::PixelPoint;
use densecl_vision::image::ImageSize;

/// What a number is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metric {
    /// A name that stays, for programs.
    pub id: String,
    /// A name for people.
    pub label: String,
    /// What it is counted in.
    pub unit: Unit,
}

/// What a number is counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// From 0 to 1.
    Share,
    /// Pixels of the target.
    Px,
    /// Things.
    Count,
}

/// A number of one case, and how much it counts among the others'.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// What it is of.
    pub metric: Metric,
    /// The number.
    pub value: f64,
    /// 1, except where points count instead of pairs.
    pub weight: f64,
}

/// The share of points within a distance, for rising distances.
#[derive(Clone, Debug, PartialEq)]
pub struct CurveSample {
    /// What it shows.
    pub curve: &'static Curve,
    /// One share a threshold.
    pub shares: Vec<f64>,
}

/// Which thresholds a curve has.
#[derive(Debug, PartialEq, Serialize)]
pub struct Curve {
    /// A name that stays, for programs.
    pub id: &'static str,
    /// What lies along the vertical axis.
    pub label: &'static str,
    /// What lies along the horizontal axis.
    pub axis: &'static str,
    /// In rising order.
    pub thresholds: &'static [f64],
}

/// One pair of pictures, measured.
#[derive(Clone, Debug)]
pub struct PairResult {
    /// Which pair.
    pub name: String,
    /// The sequence it is part of; its own name if there is none.
    pub sequence: String,
    /// What it is counted among besides all pairs.
    pub group: Option<String>,
    /// What was measured. A case may lack a metric that says nothing about it.
    pub scores: Vec<Score>,
    /// Curves.
    pub curves: Vec<CurveSample>,
    /// What can be shown of it.
    pub illustration: PairIllustration,
}

/// What a page can show of a case.
#[derive(Clone, Debug)]
pub struct PairIllustration {
    /// The source picture.
    pub source: PathBuf,
    /// The target picture.
    pub target: PathBuf,
    /// Their sizes.
    pub sizes: [ImageSize; 2],
    /// Errors up to this are small.
    pub within_px: f64,
    /// An even selection of the matches.
    pub matches: Vec<MeasuredMatch>,
    /// A carried mask.
    pub mask: Option<PropagatedMask>,
}

/// A match, and how far it is from the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredMatch {
    /// In the source.
    pub source: PixelPoint,
    /// In the target.
    pub target: PixelPoint,
    /// In pixels of the target.
    pub error_px: f64,
}

/// Labels of the target, row by row.
#[derive(Clone, Debug)]
pub struct PropagatedMask {
    /// As carried over.
    pub found: Vec<u8>,
    /// As they are.
    pub truth: Vec<u8>,
}

/// More lines than this hide one another.
const MOST_LINES: usize = 120;

impl Score {
    /// A number that counts as much as every other pair's.
    pub(super) fn new(id: impl Into<String>, label: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { metric: Metric { id: id.into(), label: label.into(), unit }, value, weight: 1.0 }
    }

    /// A number that counts `weight` times.
    pub(super) fn weighted(self, weight: f64) -> Self {
        Self { weight, ..self }
    }
}

impl PairResult {
    /// The number of this name.
    pub fn score(&self, id: &str) -> Option<f64> {
        self.scores.iter().find(|score| score.metric.id == id).map(|score| score.value)
    }
}

/// An even selection of `matches` that can be drawn.
pub(super) fn selection(matches: &[MeasuredMatch]) -> Vec<MeasuredMatch> {
    let count = matches.len().min(MOST_LINES);
    (0..count).filter_map(|drawn| matches.get(drawn * matches.len() / count).copied()).collect()
}
