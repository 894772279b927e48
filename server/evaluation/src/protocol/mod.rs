//! How a method is measured on each kind of data set.

mod hpatches;
mod mask_propagator;
mod scenes;
mod spair;

use std::path::PathBuf;

use super::dataset::{Dataset, DatasetError};
use super::feature_method::{FeatureMethod, FeatureMethodError, MethodRunner, Timings};
use super::metrics::{median, share_below};
use super::pair_result::{CurveSample, MeasuredMatch, PairResult, Score, Unit};
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::matching::{MatchError, MatchOptions, PointMatch, Refinement, SoftArgmax};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationOptions {
    /// Sub-cell refinement of the matches.
    pub refine: Refinement,
    /// How the refinement weighs places.
    pub soft_argmax: SoftArgmax,
    /// About how many points of the regular grid lie along the source's longer side.
    pub grid_points: u32,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self { refine: Refinement::SoftArgmax, soft_argmax: SoftArgmax::default(), grid_points: 24 }
    }
}

impl EvaluationOptions {
    fn match_options(&self) -> MatchOptions {
        MatchOptions { refine: self.refine, soft_argmax: self.soft_argmax, ..MatchOptions::default() }
    }
}

/// Why an evaluation could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The data set is not what it should be.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The method failed.
    #[error("nothing was found in {}", picture.display())]
    Method {
        /// The picture it failed on.
        picture: PathBuf,
        /// What it said.
        #[source]
        source: FeatureMethodError,
    },
    /// The method gave maps that cannot be compared.
    #[error("the features of {} cannot be compared with those of the first picture", picture.display())]
    Match {
        /// The second picture.
        picture: PathBuf,
        /// Why.
        #[source]
        source: MatchError,
    },
}

/// All pairs of a data set, measured.
#[derive(Clone, Debug)]
pub struct MethodResult {
    /// One for each pair, in the order of the data set.
    pub pair_results: Vec<PairResult>,
    /// Median time from a decoded picture to its features.
    pub describe_ms: f64,
    /// Median time from two pictures' features to their matches.
    pub match_ms: f64,
}

/// Measures `method` on every pair of `dataset`; `done` is called after each with how many there were.
///
/// # Errors
/// [`EvaluationError`], at the first pair that fails.
pub fn measure(
    dataset: &Dataset,
    method: &mut dyn FeatureMethod,
    options: &EvaluationOptions,
    done: &mut dyn FnMut(usize),
) -> Result<MethodResult, EvaluationError> {
    let mut runner = MethodRunner::new(method);
    let mut pair_results = Vec::with_capacity(dataset.pairs());
    let mut take = |result: PairResult| {
        pair_results.push(result);
        done(pair_results.len());
    };
    match dataset {
        Dataset::HPatches(sequences) => {
            sequences.iter().try_for_each(|one| hpatches::measure(one, &mut runner, options, &mut take))?;
        }
        Dataset::Scenes(scenes) => {
            scenes.iter().try_for_each(|one| scenes::measure(one, &mut runner, options, &mut take))?;
        }
        Dataset::Spair(pairs) => {
            for pair in pairs {
                take(spair::measure(pair, &mut runner, options)?);
            }
        }
    }
    let Timings { describe_ms, match_ms } = runner.timings;
    let middle = |times: &[f64]| median(times).unwrap_or_default();
    Ok(MethodResult { pair_results, describe_ms: middle(&describe_ms), match_ms: middle(&match_ms) })
}

/// How far each match is from where `truth` says its source is.
fn misses(matches: &[PointMatch], truth: &dyn Fn(&PointMatch) -> Option<PixelPoint>) -> Vec<MeasuredMatch> {
    let miss = |found: &PointMatch| {
        // A point whose truth is nowhere in the target's plane is infinitely wrong.
        let distance = |expected: PixelPoint| (expected.x - found.target.x).hypot(expected.y - found.target.y);
        MeasuredMatch {
            source: found.source,
            target: found.target,
            error_px: truth(found).map_or(f64::INFINITY, distance),
        }
    };
    matches.iter().map(miss).collect()
}

fn errors_px(misses: &[MeasuredMatch]) -> Vec<f64> {
    misses.iter().map(|miss| miss.error_px).collect()
}

/// PCK, the percentage of correct keypoints, within so many pixels of the target and within shares of its longer side.
/// A pair without any point says nothing.
fn pck_scores(errors: &[f64], target_side_px: f64) -> Vec<Score> {
    const PX: [f64; 3] = [5.0, 10.0, 20.0];
    const SIDE: [f64; 2] = [0.05, 0.1];
    let score = |id: String, label: String, threshold: f64| {
        share_below(errors, threshold).map(|share| Score::new(id, label, Unit::Share, share))
    };
    let by_px = PX.iter().map(|&px| score(format!("pck_{px}px"), format!("PCK at {px} px"), px));
    let by_side = SIDE.iter().map(|&share| {
        let label = format!("PCK at {} % of the side", share * 100.0);
        score(format!("pck_side_{share}"), label, share * target_side_px)
    });
    by_px.chain(by_side).flatten().collect()
}

/// The shares of `errors` below each of a curve's thresholds, which are multiples of `unit_px`.
fn curve_sample(curve: &'static super::pair_result::Curve, errors: &[f64], unit_px: f64) -> CurveSample {
    let share = |&threshold: &f64| share_below(errors, threshold * unit_px).unwrap_or(0.0);
    CurveSample { curve, shares: curve.thresholds.iter().map(share).collect() }
}

/// Points that lie inside a picture by construction.
fn inside(points: Vec<PixelPoint>, image: densecl_vision::image::ImageSize) -> ImagePoints {
    ImagePoints::new(points, image).expect("only points inside the picture were kept")
}

#[cfg(test)]
mod tests;
