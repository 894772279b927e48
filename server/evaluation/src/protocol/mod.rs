//! How a contestant is measured on each kind of data set.

mod hpatches;
mod mask_carrier;
mod scenes;
mod spair;

use std::path::PathBuf;

use super::case::{Case, CurveSample, MatchError as MatchMiss, Score, Unit};
use super::contestant::{Contestant, ContestantError, Describer, Timings};
use super::dataset::{Dataset, DatasetError};
use super::metrics::{median, share_below};
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::matching::{MatchError, MatchOptions, PointMatch, Refine, SoftArgmax};

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Sub-cell refinement of the matches.
    pub refine: Refine,
    /// How the refinement weighs places.
    pub soft_argmax: SoftArgmax,
    /// About how many points of the regular grid lie along the source's longer side.
    pub grid_points: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { refine: Refine::SoftArgmax, soft_argmax: SoftArgmax::default(), grid_points: 24 }
    }
}

impl Options {
    fn match_options(&self) -> MatchOptions {
        MatchOptions { refine: self.refine, soft_argmax: self.soft_argmax, ..MatchOptions::default() }
    }
}

/// Why an evaluation could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The data set is not what it should be.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The contestant failed.
    #[error("nothing was found in {}", picture.display())]
    Contestant {
        /// The picture it failed on.
        picture: PathBuf,
        /// What it said.
        #[source]
        source: ContestantError,
    },
    /// The contestant gave maps that cannot be compared.
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
pub struct Measured {
    /// One for each pair, in the order of the data set.
    pub cases: Vec<Case>,
    /// Median time from a decoded picture to its features.
    pub describe_ms: f64,
    /// Median time from two pictures' features to their matches.
    pub match_ms: f64,
}

/// Measures `contestant` on every pair of `dataset`; `done` is called after each with how many there were.
///
/// # Errors
/// [`EvaluateError`], at the first pair that fails.
pub fn measure(
    dataset: &Dataset,
    contestant: &mut dyn Contestant,
    options: &Options,
    done: &mut dyn FnMut(usize),
) -> Result<Measured, EvaluateError> {
    let mut describer = Describer::new(contestant);
    let mut cases = Vec::with_capacity(dataset.pairs());
    let mut take = |case: Case| {
        cases.push(case);
        done(cases.len());
    };
    match dataset {
        Dataset::HPatches(sequences) => {
            sequences.iter().try_for_each(|one| hpatches::measure(one, &mut describer, options, &mut take))?;
        }
        Dataset::Scenes(scenes) => {
            scenes.iter().try_for_each(|one| scenes::measure(one, &mut describer, options, &mut take))?;
        }
        Dataset::Spair(pairs) => {
            for pair in pairs {
                take(spair::measure(pair, &mut describer, options)?);
            }
        }
    }
    let Timings { describe_ms, match_ms } = describer.timings;
    let middle = |times: &[f64]| median(times).unwrap_or_default();
    Ok(Measured { cases, describe_ms: middle(&describe_ms), match_ms: middle(&match_ms) })
}

/// How far each match is from where `truth` says its source is.
fn misses(matches: &[PointMatch], truth: &dyn Fn(&PointMatch) -> Option<PixelPoint>) -> Vec<MatchMiss> {
    let miss = |found: &PointMatch| {
        // A point whose truth is nowhere in the target's plane is infinitely wrong.
        let distance = |expected: PixelPoint| (expected.x - found.target.x).hypot(expected.y - found.target.y);
        MatchMiss { source: found.source, target: found.target, error_px: truth(found).map_or(f64::INFINITY, distance) }
    };
    matches.iter().map(miss).collect()
}

fn errors_px(misses: &[MatchMiss]) -> Vec<f64> {
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
fn curve_sample(curve: &'static super::case::Curve, errors: &[f64], unit_px: f64) -> CurveSample {
    let share = |&threshold: &f64| share_below(errors, threshold * unit_px).unwrap_or(0.0);
    CurveSample { curve, shares: curve.thresholds.iter().map(share).collect() }
}

/// Points that lie inside a picture by construction.
fn inside(points: Vec<PixelPoint>, image: densecl_vision::image::ImageSize) -> ImagePoints {
    ImagePoints::new(points, image).expect("only points inside the picture were kept")
}

#[cfg(test)]
mod tests;
