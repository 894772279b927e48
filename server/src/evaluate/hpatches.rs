//! The `HPatches` protocol on a folder in that data set's format.
//!
//! Folders `v_*` (change of viewpoint) and `i_*` (change of illumination) hold pictures `1`, `2`, … (`.ppm`, `.png`,
//! `.jpg`) and for each but the first a homography `H_1_2`, `H_1_3`, … from picture 1: nine numbers as text.
//!
//! Balntas et al., *`HPatches`*, CVPR 2017; the mean matching accuracy as in Dusmanu et al., *D2-Net*, CVPR 2019, with
//! the cells of the map as keypoints.

mod sequence;

use std::path::{Path, PathBuf};

use super::report::{MeanOverPairs, Report, Summary, Threshold};
use crate::features::{FeatureMap, ImagePoints, NormalizedMap, PixelPoint};
use crate::image::{ImageSize, RgbImage};
use crate::matching::{
    Cancellation, ImagePair, MatchError, MatchOptions, MatchSide, PointMatch, Queries, Refine, correspond,
};

pub use self::sequence::{Sequence, SequenceError, sequences};

const MMA_PX: [f64; 4] = [1.0, 3.0, 5.0, 10.0];
const PCK_PX: [f64; 3] = [5.0, 10.0, 20.0];
const PCK_SIDE: [f64; 2] = [0.05, 0.1];

/// What an extractor may fail with.
pub type ExtractorError = Box<dyn std::error::Error + Send + Sync>;

/// Turns a picture into features.
pub type Extractor<'a> = dyn FnMut(&RgbImage) -> Result<FeatureMap, ExtractorError> + 'a;

/// How to evaluate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Sub-cell refinement of the matches.
    pub refine: Refine,
    /// About how many points of the regular grid lie along the source's longer side.
    pub grid_points: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { refine: Refine::SoftArgmax, grid_points: 24 }
    }
}

/// Why an evaluation could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// The folder is not in the format.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The extractor failed.
    #[error("no features of {}", picture.display())]
    Extractor {
        /// The picture it failed on.
        picture: PathBuf,
        /// What it said.
        #[source]
        source: ExtractorError,
    },
    /// The extractor gave maps that cannot be compared.
    #[error("the features of {} cannot be compared with those of the first picture", picture.display())]
    Match {
        /// The second picture.
        picture: PathBuf,
        /// Why.
        #[source]
        source: MatchError,
    },
}

/// Matches the first picture of every sequence in `folder` with each of the others, and measures how far off the
/// matches are. `name` is what the report calls the extractor.
///
/// # Errors
/// [`EvaluateError`]; what is missing in the folder is named before anything is computed.
pub fn run(folder: &Path, name: &str, extract: &mut Extractor<'_>, options: &Options) -> Result<Report, EvaluateError> {
    let sequences = sequences(folder)?;
    let (mut viewpoint, mut illumination) = (Vec::new(), Vec::new());
    for sequence in &sequences {
        let group = if sequence.changes_viewpoint() { &mut viewpoint } else { &mut illumination };
        group.extend(measure_sequence(sequence, extract, *options)?);
    }
    let all: Vec<PairErrors> = viewpoint.iter().chain(&illumination).cloned().collect();
    let summarized = |pairs: &[PairErrors]| (!pairs.is_empty()).then(|| summarize(pairs));
    Ok(Report {
        extractor: name.to_owned(),
        sequences: sequences.len(),
        all: summarize(&all),
        viewpoint: summarized(&viewpoint),
        illumination: summarized(&illumination),
    })
}

/// How far off the matches of one pair are, in pixels of the target.
#[derive(Clone, Debug)]
struct PairErrors {
    mutual: Vec<f64>,
    grid: Vec<f64>,
    target_side: f64,
}

/// A picture with its features.
struct Described {
    map: NormalizedMap,
    image: ImageSize,
}

impl Described {
    fn read(path: &Path, extract: &mut Extractor<'_>) -> Result<Self, EvaluateError> {
        let picture = sequence::read_picture(path)?;
        let map = extract(&picture)
            .map_err(|source| EvaluateError::Extractor { picture: path.to_owned(), source })?
            .into_normalized();
        Ok(Self { map, image: ImageSize::of(&picture) })
    }

    fn side(&self) -> MatchSide<'_> {
        MatchSide { map: &self.map, image: self.image }
    }
}

fn measure_sequence(
    sequence: &Sequence,
    extract: &mut Extractor<'_>,
    options: Options,
) -> Result<Vec<PairErrors>, EvaluateError> {
    let source = Described::read(&sequence.first, extract)?;
    let mut pairs = Vec::new();
    for other in &sequence.others {
        let target = Described::read(&other.picture, extract)?;
        let project = |point| other.homography.project(point);
        let errors = measure_pair(&source, &target, &project, options)
            .map_err(|source| EvaluateError::Match { picture: other.picture.clone(), source })?;
        pairs.push(errors);
    }
    Ok(pairs)
}

fn measure_pair(
    source: &Described,
    target: &Described,
    truth: &dyn Fn(PixelPoint) -> Option<PixelPoint>,
    options: Options,
) -> Result<PairErrors, MatchError> {
    let errors = |matches: &[PointMatch]| matches.iter().map(|found| error_px(found, truth)).collect();
    let settings = MatchOptions { refine: options.refine, ..MatchOptions::default() };
    let mutual = MatchOptions { mutual: true, ..settings };
    let pair = ImagePair { source: source.side(), target: target.side() };
    let never = Cancellation::default();
    let mutual = correspond(pair, Queries::Cells, &mutual, &never)?;
    let points = visible_grid(source.image, target.image, truth, options.grid_points);
    let grid = correspond(pair, Queries::Points(&points), &settings, &never)?;
    Ok(PairErrors { mutual: errors(&mutual), grid: errors(&grid), target_side: f64::from(target.image.longer_side()) })
}

/// How far `found` is from the truth; infinitely if the truth is nowhere in the target's plane.
fn error_px(found: &PointMatch, truth: &dyn Fn(PixelPoint) -> Option<PixelPoint>) -> f64 {
    truth(found.source)
        .map_or(f64::INFINITY, |expected| (expected.x - found.target.x).hypot(expected.y - found.target.y))
}

/// The points of a regular grid in the source that are inside the target.
fn visible_grid(
    source: ImageSize,
    target: ImageSize,
    truth: &dyn Fn(PixelPoint) -> Option<PixelPoint>,
    along: u32,
) -> ImagePoints {
    let spacing = (f64::from(source.longer_side()) / f64::from(along.max(1))).max(1.0);
    let grid = ImagePoints::grid(source, spacing, usize::MAX).expect("the spacing is a pixel or more, without a limit");
    let visible = |point: &PixelPoint| truth(*point).is_some_and(|place| ImagePoints::new(vec![place], target).is_ok());
    let points = grid.as_slice().iter().copied().filter(visible).collect();
    ImagePoints::new(points, source).expect("points of a grid lie inside")
}

fn summarize(pairs: &[PairErrors]) -> Summary {
    let curve = |thresholds: &[f64], share: &dyn Fn(&PairErrors, f64) -> Option<f64>| {
        let at = |&threshold: &f64| {
            let shares: Vec<f64> = pairs.iter().filter_map(|pair| share(pair, threshold)).collect();
            Threshold { threshold, share: MeanOverPairs::of(&shares) }
        };
        thresholds.iter().map(at).collect::<Vec<Threshold>>()
    };
    let counts: Vec<f64> = pairs.iter().map(|pair| pair.mutual.len() as f64).collect();
    Summary {
        pairs: pairs.len(),
        matches: MeanOverPairs::of(&counts),
        // A pair without any match is a failure, not a gap in the data.
        mma: curve(&MMA_PX, &|pair, px| Some(share_below(&pair.mutual, px).unwrap_or(0.0))),
        // A pair without any visible point says nothing.
        pck_px: curve(&PCK_PX, &|pair, px| share_below(&pair.grid, px)),
        pck_side: curve(&PCK_SIDE, &|pair, share| share_below(&pair.grid, share * pair.target_side)),
    }
}

fn share_below(errors: &[f64], threshold: f64) -> Option<f64> {
    let below = errors.iter().filter(|&&error| error < threshold).count();
    (!errors.is_empty()).then(|| below as f64 / errors.len() as f64)
}

#[cfg(test)]
mod tests;
