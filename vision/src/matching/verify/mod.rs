//! Geometric verification: the homography or the fundamental matrix that most matches agree with, by RANSAC.
//!
//! RANSAC is that of Fischler and Bolles, *Random Sample Consensus*, 1981, with local optimisation (Chum, Matas and
//! Kittler, *Locally Optimized RANSAC*, 2003; Lebeda, Matas and Chum, *Fixing the Locally Optimized RANSAC*, 2012). Models
//! are scored by an M-estimator as in MSAC (Torr and Zisserman, *MLESAC*, 2000), but with Tukey's biweight
//! instead of a truncated quadratic: the threshold of half a cell is wide compared with the error of a good match, so that
//! some inliers are chance matches. The last step is a weighted linear least-squares fit to all inliers in normalised
//! coordinates (Hartley, *In Defense of the Eight-Point Algorithm*, 1997). Random numbers have a fixed seed: equal matches
//! give equal results.
//!
//! Internal coordinates are in *thresholds*: 1 is the largest distance of an inlier. Each image has its own unit,
//! proportional to its cells, so that the result does not depend on the resolution in which an image was uploaded.

mod consensus;
mod fundamental;
mod homography;
mod normalization;
mod separate_pairs;

use self::consensus::{Consensus, Model, find_consensus};
use self::fundamental::FundamentalMatrix;
use self::homography::HomographyModel;
use self::normalization::SimilarityTransform;
use self::separate_pairs::{Agreement, JudgedPair, SeparatePairs, distinct};
use super::{Cancellation, Cancelled, ImagePair, PointMatch};
use crate::features::Geometry;
use crate::image::ImageSize;
use nalgebra::Matrix3;

/// Default threshold in cells of the target. On photographs under known homographies, correct refined matches are within
/// it, and it is small enough to tell neighbouring cells apart.
const THRESHOLD_CELLS: f64 = 0.5;
/// Share of a fundamental matrix's inliers that must be off the dominant plane, and their distance from it in thresholds.
/// On photographs of flat objects, up to a quarter of the inliers are matches that are wrong by one or two cells, so a
/// smaller distance is no evidence of parallax.
const MIN_SHARE_OFF_PLANE: f64 = 0.05;
const OFF_PLANE: f64 = 3.0;
/// Distance from an epipole, in thresholds, within which a pair agrees with every fundamental matrix that has this epipole.
const AT_EPIPOLE: f64 = 2.0;

/// Geometric relation of two images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GeometricModel {
    /// Of a plane, or of a camera that only rotates: `x' ~ H·x`.
    Homography,
    /// Of any rigid scene seen by two cameras: `x'ᵀ·F·x = 0`.
    Fundamental,
}

/// Options of verification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerifyOptions {
    /// The model to estimate.
    pub model: GeometricModel,
    /// Largest distance of an inlier, in pixels of the target; half a cell of the target's map if not given.
    pub threshold_px: Option<f64>,
}

/// Result of verification.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verification {
    /// The estimated model.
    pub model: GeometricModel,
    /// The matrix, row by row; `None` if the matches do not determine it. A homography maps `(x, y, 1)` in pixels of the
    /// source to the target, and its last entry is 1 unless that is impossible. A fundamental matrix has Frobenius norm 1.
    pub matrix: Option<[[f64; 3]; 3]>,
    /// Number of matches that agree.
    pub inliers: usize,
    /// Largest distance of an inlier, in pixels of the target.
    pub threshold_px: f64,
    /// The reason why there is no matrix.
    pub reason: Option<Undetermined>,
}

/// The reason why matches do not determine a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undetermined {
    /// There are fewer than 4 matches for a homography, or fewer than 8 for a fundamental matrix.
    TooFewMatches,
    /// Too few matches agree with any model: no more than would by chance.
    NoConsensus,
    /// The matches that agree also agree with other matrices: all but a few are in fewer than 4 places (homography) or 8
    /// (fundamental matrix) of one of the images, on one line of one of the images or, for a fundamental matrix, on one
    /// plane.
    Degenerate,
}

/// The two points of a match in internal coordinates, see the module.
#[derive(Clone, Copy, Debug, PartialEq)]
struct PointPair {
    source: [f64; 2],
    target: [f64; 2],
}

/// The geometries of a source and a target image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeometryPair {
    /// Of the source.
    pub source: Geometry,
    /// Of the target.
    pub target: Geometry,
}

impl From<ImagePair<'_>> for GeometryPair {
    fn from(pair: ImagePair<'_>) -> Self {
        Self { source: pair.source.geometry(), target: pair.target.geometry() }
    }
}

/// Estimates the model that most of `matches` agree with, and sets [`PointMatch::inlier`] in each.
///
/// The distance of a match from a homography is the larger of its transfer errors in the two images. Its distance from a
/// fundamental matrix is the Sampson distance (Hartley and Zisserman, *Multiple View Geometry*, 2nd edition, equation
/// 11.9).
///
/// # Errors
/// [`Cancelled`] if `cancellation` is cancelled.
pub fn verify(
    matches: &mut [PointMatch],
    GeometryPair { source, target }: GeometryPair,
    options: &VerifyOptions,
    cancellation: &Cancellation,
) -> Result<Verification, Cancelled> {
    let (source_cell, target_cell) = (cell_px(source), cell_px(target));
    let threshold_px = options.threshold_px.unwrap_or(THRESHOLD_CELLS * target_cell);
    let units = ThresholdUnits {
        source: SimilarityTransform::from_image(source.image, threshold_px * source_cell / target_cell),
        target: SimilarityTransform::from_image(target.image, threshold_px),
        images: [source.image, target.image],
    };
    // A match that is there several times is no more evidence than once.
    let (pairs, indices) = distinct(&matches.iter().map(|found| units.pair(found)).collect::<Vec<_>>());
    let found = match options.model {
        GeometricModel::Homography => {
            homography(&pairs, units.chance_near_point(), cancellation)?.map(|(h, inliers)| {
                (scaled_to_last_entry(units.target.inverse_matrix() * h * units.source.matrix()), inliers)
            })
        }
        GeometricModel::Fundamental => {
            fundamental(&pairs, units.chance_near_line(), cancellation)?.map(|(f, inliers)| {
                (scaled_to_unit_norm(units.target.matrix().transpose() * f * units.source.matrix()), inliers)
            })
        }
    };
    let (matrix, inliers, reason) = match found {
        Ok((matrix, inliers)) => (Some(rows(&matrix)), inliers, None),
        Err(reason) => {
            (None, vec![false; pairs.len()], Some(reason_with_repetitions(reason, matches.len(), options.model)))
        }
    };
    for (found, &index) in matches.iter_mut().zip(&indices) {
        found.inlier = Some(inliers[index]);
    }
    let inliers = matches.iter().filter(|found| found.inlier == Some(true)).count();
    Ok(Verification { model: options.model, matrix, inliers, threshold_px, reason })
}

/// The reason of a failure, by the number of matches with repetitions: there may be enough of them, but in too few places.
fn reason_with_repetitions(reason: Undetermined, matches: usize, model: GeometricModel) -> Undetermined {
    let least = match model {
        GeometricModel::Homography => HomographyModel::MIN_MATCHES,
        GeometricModel::Fundamental => FundamentalMatrix::MIN_MATCHES,
    };
    match reason {
        Undetermined::TooFewMatches if matches >= least => Undetermined::Degenerate,
        Undetermined::TooFewMatches | Undetermined::NoConsensus | Undetermined::Degenerate => reason,
    }
}

/// A matrix in internal coordinates, and for each pair whether it is an inlier.
type Estimated = Result<(Matrix3<f64>, Vec<bool>), Undetermined>;

fn homography(pairs: &[PointPair], chance: f64, cancellation: &Cancellation) -> Result<Estimated, Cancelled> {
    Ok(match find_consensus::<HomographyModel>(pairs, cancellation)? {
        Err(reason) => Err(reason),
        Ok(Consensus { model, inliers }) => {
            let judged: Vec<_> =
                pairs.iter().zip(&inliers).map(|(&pair, &agrees)| JudgedPair { pair, agrees }).collect();
            reason_against_homography(&judged, chance).map_or_else(|| Ok((model.matrix(), inliers)), Err)
        }
    })
}

fn fundamental(pairs: &[PointPair], chance: f64, cancellation: &Cancellation) -> Result<Estimated, Cancelled> {
    Ok(match find_consensus::<FundamentalMatrix>(pairs, cancellation)? {
        Err(reason) => Err(reason),
        Ok(Consensus { model, inliers }) => {
            let mut judged: Vec<_> =
                pairs.iter().zip(&inliers).map(|(&pair, &agrees)| JudgedPair { pair, agrees }).collect();
            if !Agreement::of(&judged).is_meaningful(FundamentalMatrix::MIN_MATCHES, chance) {
                return Ok(Err(Undetermined::NoConsensus));
            }
            // Near an epipole a pair agrees with every matrix that has it.
            let epipoles = model.epipoles();
            judged.retain(|it| !epipoles.are_near(&it.pair, AT_EPIPOLE));
            let agreeing: Vec<_> = judged.iter().filter(|it| it.agrees).map(|it| it.pair).collect();
            match reason_against_fundamental(&judged, chance) {
                Some(reason) => Err(reason),
                None if lie_on_a_plane(&agreeing, cancellation)? => Err(Undetermined::Degenerate),
                None => Ok((model.matrix(), inliers)),
            }
        }
    })
}

/// The reason why the inliers among `pairs` do not determine a homography: they have to be more than chance would make
/// agree, in four places of each image, of which no three are on a line, so that any line misses at least two.
fn reason_against_homography(pairs: &[JudgedPair], chance: f64) -> Option<Undetermined> {
    if !Agreement::of(pairs).is_meaningful(HomographyModel::MIN_MATCHES, chance) {
        return Some(Undetermined::NoConsensus);
    }
    let separate = SeparatePairs::among(pairs);
    let [source, target] = separate.off_lines(&separate.best_lines());
    let agreement = separate.agreement();
    if agreement.agreeing < HomographyModel::MIN_MATCHES || source.agreeing.min(target.agreeing) < 2 {
        Some(Undetermined::Degenerate)
    } else if !agreement.is_meaningful(HomographyModel::MIN_MATCHES, chance) {
        Some(Undetermined::NoConsensus)
    } else {
        None
    }
}

/// The reason why the inliers among `pairs`, which are those away from the epipoles, do not determine a fundamental matrix:
/// they have to be in eight places of each image, more than chance would make agree, and not nearly all on a line.
///
/// With `n` the line's coefficients, `F + w·nᵀ` fits the pairs on a line of the source as well as F does, for every vector
/// `w`: three more pairs determine it. Likewise in the target. Pairs that are on a line in both images determine three of
/// the eight degrees of freedom: it takes five more.
fn reason_against_fundamental(pairs: &[JudgedPair], chance: f64) -> Option<Undetermined> {
    let separate = SeparatePairs::among(pairs);
    let agreement = separate.agreement();
    if agreement.agreeing < FundamentalMatrix::MIN_MATCHES {
        return Some(Undetermined::Degenerate);
    }
    if !agreement.is_meaningful(FundamentalMatrix::MIN_MATCHES, chance) {
        return Some(Undetermined::NoConsensus);
    }
    let lines = separate.best_lines();
    let [source, target] = separate.off_lines(&lines);
    let needed = [(source, 3), (target, 3), (separate.off_line_of_both(&lines), 5)];
    let is_determined = needed.into_iter().all(|(agreement, fitted)| agreement.is_meaningful(fitted, chance));
    (!is_determined).then_some(Undetermined::Degenerate)
}

/// Tells whether a homography fits nearly all inliers of a fundamental matrix. Then a family of fundamental matrices fits
/// equally well (Hartley and Zisserman, section 11.9.2).
fn lie_on_a_plane(inliers: &[PointPair], cancellation: &Cancellation) -> Result<bool, Cancelled> {
    let Ok(plane) = find_consensus::<HomographyModel>(inliers, cancellation)? else { return Ok(false) };
    let is_off = |pair: &&PointPair| plane.model.squared_distance(pair) > OFF_PLANE * OFF_PLANE;
    let off_plane = inliers.iter().filter(is_off).count();
    Ok((off_plane as f64) < MIN_SHARE_OFF_PLANE * inliers.len() as f64)
}

/// The transforms from pixels to thresholds.
struct ThresholdUnits {
    source: SimilarityTransform,
    target: SimilarityTransform,
    images: [ImageSize; 2],
}

impl ThresholdUnits {
    /// About the probability that a pair of random points agrees with a fundamental matrix: the area of the longest epipolar
    /// line's surroundings in an image. The Sampson distance is up to √2 times smaller than the smaller one of the distances
    /// from the two lines.
    fn chance_near_line(&self) -> f64 {
        self.largest(|width, height| 2.0 * std::f64::consts::SQRT_2 * width.hypot(height) / (width * height))
    }

    /// The probability that a pair of random points agrees with a homography, at most: the area of a point's surroundings
    /// in an image.
    fn chance_near_point(&self) -> f64 {
        self.largest(|width, height| std::f64::consts::PI / (width * height))
    }

    /// The larger of a function's values for width and height of the two images, in thresholds.
    fn largest(&self, of_size: impl Fn(f64, f64) -> f64) -> f64 {
        let [source, target] = self.images;
        let of_image = |image: ImageSize, units: &SimilarityTransform| {
            of_size(units.scale() * f64::from(image.width), units.scale() * f64::from(image.height))
        };
        of_image(source, &self.source).max(of_image(target, &self.target))
    }

    fn pair(&self, found: &PointMatch) -> PointPair {
        PointPair { source: self.source.apply(found.source.into()), target: self.target.apply(found.target.into()) }
    }
}

/// The side of a square with the area of a cell, in pixels.
fn cell_px(geometry: Geometry) -> f64 {
    let scale = geometry.cell_scale();
    (scale.x * scale.y).sqrt()
}

fn scaled_to_last_entry(matrix: Matrix3<f64>) -> Matrix3<f64> {
    let matrix = matrix / matrix.norm();
    // A homography that maps the source's first pixel to infinity has a last entry of 0.
    if matrix[(2, 2)].abs() > 1e-12 { matrix / matrix[(2, 2)] } else { matrix }
}

/// Scales to Frobenius norm 1 with a positive entry of largest magnitude.
fn scaled_to_unit_norm(matrix: Matrix3<f64>) -> Matrix3<f64> {
    let largest =
        matrix.iter().fold(0.0_f64, |largest, &entry| if entry.abs() > largest.abs() { entry } else { largest });
    matrix / (matrix.norm() * largest.signum())
}

fn rows(matrix: &Matrix3<f64>) -> [[f64; 3]; 3] {
    std::array::from_fn(|row| std::array::from_fn(|column| matrix[(row, column)]))
}

#[cfg(test)]
mod tests;
