//! Which matches agree on one geometry of the two pictures: a homography, or a fundamental matrix.
//!
//! RANSAC (Fischler and Bolles 1981) with local optimisation (Chum, Matas and Kittler, *Locally Optimized RANSAC*,
//! 2003; Lebeda, Matas and Chum, *Fixing the Locally Optimized RANSAC*, 2012). Models are judged by an M-estimator as in
//! MSAC (Torr and Zisserman 2000), but Tukey's biweight instead of a truncated quadratic: half a cell is wide beside the
//! error of a good match, and among the inliers are some by chance. The last step is a linear least-squares fit to all
//! inliers, with its weights, in normalised coordinates (Hartley, *In Defense of the Eight-Point Algorithm*, 1997).
//! Everything random comes from a fixed seed: equal matches give equal results.
//!
//! Inside, a point's coordinates are in *thresholds*: a distance of 1 is the largest that an inlier may have. Each
//! picture has its own unit, in proportion to its cells, so that a picture that was uploaded larger is not held to a
//! stricter standard.

mod consensus;
mod fundamental;
mod homography;
mod normalization;

use nalgebra::Matrix3;
use serde::{Deserialize, Serialize};

use self::consensus::{Consensus, Model, find_consensus};
use self::fundamental::FundamentalMatrix;
use self::homography::HomographyModel;
use self::normalization::Similarity;
use super::{Cancellation, Cancelled, PointMatch};
use crate::features::Geometry;

/// The default threshold in cells of the target. Measured on photographs under known homographies: refined matches
/// that are right lie within it, and it is small enough to tell neighbouring cells apart.
const THRESHOLD_CELLS: f64 = 0.5;
/// Of a fundamental matrix's inliers, the share that must be off the dominant plane for it to be determined, and how far,
/// in thresholds. On photographs of flat things, matches that are wrong by a cell or two are up to a quarter of its
/// inliers, so that what is nearer than that is no parallax.
const MIN_SHARE_OFF_PLANE: f64 = 0.05;
const OFF_PLANE: f64 = 3.0;

/// What the matches are to agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GeometricModel {
    /// A plane, or a camera that only turned: `x' ~ H·x`.
    Homography,
    /// Any rigid scene seen by two cameras: `x'ᵀ·F·x = 0`.
    Fundamental,
}

/// How matches are verified.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerifyOptions {
    /// What they are to agree on.
    pub model: GeometricModel,
    /// The largest distance of an inlier in pixels of the target; half a cell of the target's map if not given.
    pub threshold_px: Option<f64>,
}

/// What the matches agree on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// What was looked for.
    pub model: GeometricModel,
    /// Row by row; nothing if the matches do not determine it. A homography takes `(x, y, 1)` in pixels of the source to
    /// the target, its last entry 1 unless that is impossible; a fundamental matrix has Frobenius norm 1.
    pub matrix: Option<[[f64; 3]; 3]>,
    /// How many matches agree.
    pub inliers: usize,
    /// The largest distance of an inlier in pixels of the target.
    pub threshold_px: f64,
    /// Why there is no matrix.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Undetermined>,
}

/// Why matches do not determine a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Undetermined {
    /// Fewer than 4 for a homography, or than 8 for a fundamental matrix.
    TooFewMatches,
    /// Too few agree on anything.
    NoConsensus,
    /// Those that agree lie on one line (homography), or on one plane (fundamental matrix: a homography says it all).
    Degenerate,
}

/// A match in the coordinates that models are fitted in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Pair {
    source: [f64; 2],
    target: [f64; 2],
}

/// Looks for the geometry that most of `matches` agree on, and flags in each whether it does.
///
/// The distance of a match from a homography is the larger of those in the two pictures, from a fundamental matrix the
/// Sampson distance (Hartley and Zisserman, *Multiple View Geometry*, 11.4.3).
///
/// # Errors
/// [`Cancelled`] if nobody waits for it any more.
pub fn verify(
    matches: &mut [PointMatch],
    source: Geometry,
    target: Geometry,
    options: &VerifyOptions,
    cancellation: &Cancellation,
) -> Result<Verification, Cancelled> {
    let (source_cell, target_cell) = (cell_px(source), cell_px(target));
    let threshold_px = options.threshold_px.unwrap_or(THRESHOLD_CELLS * target_cell);
    let frames = Frames {
        source: Similarity::of_image(source.image, threshold_px * source_cell / target_cell),
        target: Similarity::of_image(target.image, threshold_px),
    };
    let pairs: Vec<Pair> = matches.iter().map(|found| frames.pair(found)).collect();
    let found = match options.model {
        GeometricModel::Homography => homography(&pairs, cancellation)?.map(|(h, inliers)| {
            (scaled_to_last_entry(frames.target.inverse_matrix() * h * frames.source.matrix()), inliers)
        }),
        GeometricModel::Fundamental => fundamental(&pairs, cancellation)?.map(|(f, inliers)| {
            (scaled_to_unit_norm(frames.target.matrix().transpose() * f * frames.source.matrix()), inliers)
        }),
    };
    let (matrix, inliers, reason) = match found {
        Ok((matrix, inliers)) => (Some(rows(&matrix)), inliers, None),
        Err(reason) => (None, vec![false; pairs.len()], Some(reason)),
    };
    for (found, &inlier) in matches.iter_mut().zip(&inliers) {
        found.inlier = Some(inlier);
    }
    let inliers = inliers.iter().filter(|inlier| **inlier).count();
    Ok(Verification { model: options.model, matrix, inliers, threshold_px, reason })
}

/// A matrix in the coordinates of [`Frames`] and which pairs agree with it.
type Determined = Result<(Matrix3<f64>, Vec<bool>), Undetermined>;

fn homography(pairs: &[Pair], cancellation: &Cancellation) -> Result<Determined, Cancelled> {
    Ok(match find_consensus::<HomographyModel>(pairs, cancellation)? {
        Err(reason) => Err(reason),
        Ok(Consensus { inliers, .. }) if lie_on_a_line(pairs, &inliers) => Err(Undetermined::Degenerate),
        Ok(Consensus { model, inliers }) => Ok((model.matrix(), inliers)),
    })
}

fn fundamental(pairs: &[Pair], cancellation: &Cancellation) -> Result<Determined, Cancelled> {
    Ok(match find_consensus::<FundamentalMatrix>(pairs, cancellation)? {
        Err(reason) => Err(reason),
        Ok(Consensus { inliers, .. }) if lie_on_a_plane(pairs, &inliers, cancellation)? => {
            Err(Undetermined::Degenerate)
        }
        Ok(Consensus { model, inliers }) => Ok((model.matrix(), inliers)),
    })
}

/// Whether the inliers of a homography, in either picture, have fewer than two points off a line, give or take the
/// threshold: four points in general position need two.
fn lie_on_a_line(pairs: &[Pair], inliers: &[bool]) -> bool {
    let inliers: Vec<&Pair> = pairs.iter().zip(inliers).filter(|(_, inlier)| **inlier).map(|(pair, _)| pair).collect();
    [|pair: &Pair| pair.source, |pair: &Pair| pair.target].iter().any(|end| {
        let points: Vec<[f64; 2]> = inliers.iter().map(|pair| end(pair)).collect();
        normalization::distances_from_line(&points).iter().filter(|distance| **distance > 1.0).count() < 2
    })
}

/// Whether a homography explains nearly all inliers of a fundamental matrix: then a family of them fits equally well.
fn lie_on_a_plane(pairs: &[Pair], inliers: &[bool], cancellation: &Cancellation) -> Result<bool, Cancelled> {
    let inliers: Vec<Pair> = pairs.iter().zip(inliers).filter(|(_, inlier)| **inlier).map(|(pair, _)| *pair).collect();
    let Ok(plane) = find_consensus::<HomographyModel>(&inliers, cancellation)? else { return Ok(false) };
    let is_off = |pair: &&Pair| plane.model.squared_distance(pair) > OFF_PLANE * OFF_PLANE;
    let off_plane = inliers.iter().filter(is_off).count();
    Ok((off_plane as f64) < MIN_SHARE_OFF_PLANE * inliers.len() as f64)
}

/// From pixels to thresholds, for each picture.
struct Frames {
    source: Similarity,
    target: Similarity,
}

impl Frames {
    fn pair(&self, found: &PointMatch) -> Pair {
        Pair { source: self.source.apply(found.source.into()), target: self.target.apply(found.target.into()) }
    }
}

/// The side of a square as large as a cell, in pixels.
fn cell_px(geometry: Geometry) -> f64 {
    let scale = geometry.cell_scale();
    (scale.x * scale.y).sqrt()
}

fn scaled_to_last_entry(matrix: Matrix3<f64>) -> Matrix3<f64> {
    let matrix = matrix / matrix.norm();
    // A homography that takes the source's first pixel to infinity has none.
    if matrix[(2, 2)].abs() > 1e-12 { matrix / matrix[(2, 2)] } else { matrix }
}

/// The sign is free: the entry that is farthest from zero is positive.
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
