//! The evaluation protocol of each kind of data set.

mod hpatches;
mod mask_propagator;
mod scenes;
mod spair;

use super::dataset::Dataset;
use super::error::EvaluationError;
use super::feature_method::{FeatureMethod, MethodRunner, Timings};
use super::metrics::{median, share_below};
use super::pair_result::{CurveSample, MeasuredMatch, PairResult, Score, Unit};
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::matching::{MatchOptions, PointMatch, Refinement, SoftArgmax};

/// Options of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationOptions {
    /// Sub-cell refinement of the matches.
    pub refine: Refinement,
    /// Parameters of the refinement.
    pub soft_argmax: SoftArgmax,
    /// Approximate number of points of the regular grid along the source's longer side.
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

/// The results of a method on all pairs of a data set.
#[derive(Clone, Debug)]
pub struct MethodResult {
    /// One for each pair, in the order of the data set.
    pub pair_results: Vec<PairResult>,
    /// Median time from a decoded image to its features.
    pub describe_ms: f64,
    /// Median time from the features of two images to their matches.
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

/// The distance of each match from the ground truth.
fn misses(matches: &[PointMatch], truth: &dyn Fn(&PointMatch) -> Option<PixelPoint>) -> Vec<MeasuredMatch> {
    let miss = |found: &PointMatch| {
        // A point without ground truth in the target has an infinite error.
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

/// PCK, the percentage of correct keypoints, at thresholds in pixels and in shares of the target's longer side. A pair
/// without points has no scores.
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

/// The share of `errors` below each of a curve's thresholds, in units of `unit_px` pixels.
fn curve_sample(curve: &'static super::pair_result::Curve, errors: &[f64], unit_px: f64) -> CurveSample {
    let share = |&threshold: &f64| share_below(errors, threshold * unit_px).unwrap_or(0.0);
    CurveSample { curve, shares: curve.thresholds.iter().map(share).collect() }
}

/// Points that are inside an image by construction.
fn inside(points: Vec<PixelPoint>, image: densecl_vision::image::ImageSize) -> ImagePoints {
    ImagePoints::new(points, image).expect("the points are inside the image")
}

#[cfg(test)]
mod tests;
