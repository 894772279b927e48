//! The matcher's front door.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use ndarray::{Array2, Axis};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::refine::{SoftArgmax, refine};
use super::similarity::{Peak, RowPeaks, row_peaks, row_peaks_and_column_best};
use super::{Cancellation, Cancelled};
use crate::features::{
    CellPoint, Geometry, GridSize, ImagePoints, NeighbourProducts, NormalizedMap, PixelPoint, descriptors_at,
    l2_normalize_rows,
};
use crate::image::ImageSize;

/// One of the two pictures that are matched.
#[derive(Clone, Copy, Debug)]
pub struct MatchSide<'a> {
    /// Its features.
    pub map: &'a NormalizedMap,
    /// Its size in pixels.
    pub image: ImageSize,
}

/// The pictures that are matched, described by the same model and layers.
#[derive(Clone, Copy, Debug)]
pub struct ImagePair<'a> {
    /// The picture whose points are looked for.
    pub source: MatchSide<'a>,
    /// The picture that they are looked for in.
    pub target: MatchSide<'a>,
}

/// What is looked for in the target.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// These points of the source (given ones, or [`ImagePoints::grid`]).
    Points(&'a ImagePoints),
    /// The centre of every cell of the source.
    Cells,
}

/// How the best cell becomes a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Refine {
    /// The cell's centre.
    None,
    /// Sub-cell, by a soft-argmax in a window around the best cell.
    #[default]
    SoftArgmax,
}

/// How to match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchOptions {
    /// Candidates per query: the best, and next-best ones outside the 3×3 cells around better ones.
    pub top_k: NonZeroUsize,
    /// Keep only mutual nearest neighbours.
    pub mutual: bool,
    /// Keep only matches with at least this cosine similarity.
    pub min_score: Option<f32>,
    /// Keep only matches whose [`PointMatch::ratio`] is at most this.
    pub max_ratio: Option<f32>,
    /// Sub-cell refinement.
    pub refine: Refine,
    /// How it weighs places.
    pub soft_argmax: SoftArgmax,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            top_k: NonZeroUsize::MIN,
            mutual: false,
            min_score: None,
            max_ratio: None,
            refine: Refine::default(),
            soft_argmax: SoftArgmax::default(),
        }
    }
}

/// A place in the target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Where, in pixels of the target picture.
    pub target: PixelPoint,
    /// Cosine similarity of the descriptors at the source and at `target`.
    pub score: f32,
}

/// A query and what was found for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PointMatch {
    /// Index of the query: into the points given, or of the source cell in row-major order.
    #[serde(skip)]
    pub query: usize,
    /// The point of the source picture, in pixels.
    pub source: PixelPoint,
    /// The best place in the target picture, in pixels: that of the first candidate.
    pub target: PixelPoint,
    /// Its cosine similarity.
    pub score: f32,
    /// Whether the target's best cell finds its way back: to the very cell for [`Queries::Cells`], to within one cell
    /// of the point for [`Queries::Points`].
    pub mutual: bool,
    /// The best similarity outside the 3×3 cells around the best cell, over the best; 0 is unambiguous, 1 a tie.
    pub ratio: f32,
    /// Whether it agrees with the geometry that [`super::verify`] found; nothing before that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inlier: Option<bool>,
    /// The best and the next-best places, by falling similarity of their cells; at least one, at most `top_k`.
    pub candidates: Vec<Candidate>,
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// The descriptors have different lengths: other models or layers.
    #[error(
        "the source has {source_channels} channels and the target {target_channels}: both need the same model and layer"
    )]
    Channels {
        /// Channels of the source.
        source_channels: usize,
        /// Channels of the target.
        target_channels: usize,
    },
    /// Nobody waits for it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Finds every query of the source in the target; one match a query, in the order of the queries, less those that
/// the options filter out.
///
/// # Errors
/// [`MatchError`] if the maps have different numbers of channels, or nobody waits for the result any more.
pub fn correspond(
    pair: ImagePair<'_>,
    queries: Queries<'_>,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<PointMatch>, MatchError> {
    pair.check_channels()?;
    let found = match queries {
        Queries::Cells => cells_in_target(pair, options, cancellation)?,
        Queries::Points(points) => points_in_target(pair, points, options, cancellation)?,
    };
    let targets = Targets::new(pair.target, options);
    // What whole cells decide comes first: refining is the dearer part.
    let kept = found.par_iter().enumerate().filter(|(_, found)| options.keep_cell(found));
    let matches = kept.filter_map(|(query, found)| targets.point_match(query, found));
    Ok(matches.filter(|found| options.min_score.is_none_or(|least| found.score >= least)).collect())
}

impl ImagePair<'_> {
    pub(super) fn check_channels(&self) -> Result<(), MatchError> {
        check_channels(self.source.map, self.target.map)
    }
}

pub(super) fn check_channels(source: &NormalizedMap, target: &NormalizedMap) -> Result<(), MatchError> {
    let (source_channels, target_channels) = (source.channels(), target.channels());
    if source_channels == target_channels {
        return Ok(());
    }
    Err(MatchError::Channels { source_channels, target_channels })
}

/// `[P, C]`, every row of length 1 (or 0).
pub(super) fn unit_descriptors_at(side: MatchSide<'_>, points: &ImagePoints) -> Array2<f32> {
    let mut descriptors = descriptors_at(side.map, side.image, points); // [P, C]
    l2_normalize_rows(&mut descriptors);
    descriptors
}

impl MatchOptions {
    fn keep_cell(&self, found: &Found) -> bool {
        (found.mutual || !self.mutual) && self.max_ratio.is_none_or(|most| found.row.ratio() <= most)
    }
}

/// A query and its best cells.
struct Found {
    source: PixelPoint,
    /// How far the query lies beyond the centres of the source's outermost cells, in cells.
    beyond: CellPoint,
    row: RowPeaks,
    mutual: bool,
}

fn cells_in_target(
    ImagePair { source, target }: ImagePair<'_>,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<Found>, Cancelled> {
    let queries = source.map.matrix().reversed_axes(); // [N, C]
    let (columns, grid) = (target.map.matrix(), target.map.grid());
    let (rows, columns) = row_peaks_and_column_best(&queries, &columns, grid, options.top_k.get(), cancellation)?;
    let geometry = source.map.geometry(source.image);
    let found = rows.into_iter().enumerate().map(|(query, row)| Found {
        source: geometry.cell_center(query),
        beyond: CellPoint { x: 0.0, y: 0.0 },
        mutual: row.peaks.first().is_some_and(|peak| columns.rows()[peak.cell] as usize == query),
        row,
    });
    Ok(found.collect())
}

fn points_in_target(
    pair @ ImagePair { source, target }: ImagePair<'_>,
    points: &ImagePoints,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<Found>, Cancelled> {
    let queries = unit_descriptors_at(source, points); // [P, C]
    let (columns, grid) = (target.map.matrix(), target.map.grid());
    let rows = row_peaks(&queries.view(), &columns, grid, options.top_k.get(), cancellation)?;
    let ways_back = ways_back(pair, &rows, cancellation)?;
    let geometry = source.map.geometry(source.image);
    let found = points.as_slice().iter().zip(rows).map(|(&point, row)| {
        let cell = geometry.cell_from_pixel(point);
        let mutual = row.peaks.first().and_then(|peak| ways_back.get(&peak.cell)).is_some_and(|&back| {
            let (y, x) = ((back / geometry.grid.width) as f64, (back % geometry.grid.width) as f64);
            (x - cell.x).abs() <= 1.0 && (y - cell.y).abs() <= 1.0
        });
        Found { source: point, beyond: beyond_centres(cell, geometry.grid), row, mutual }
    });
    Ok(found.collect())
}

/// For the best cells of the target, the cell of the source that is most similar.
fn ways_back(
    ImagePair { source, target }: ImagePair<'_>,
    rows: &[RowPeaks],
    cancellation: &Cancellation,
) -> Result<BTreeMap<usize, usize>, Cancelled> {
    let best: BTreeSet<usize> = rows.iter().filter_map(|row| row.peaks.first()).map(|peak| peak.cell).collect();
    let best: Vec<usize> = best.into_iter().collect();
    let descriptors = target.map.matrix().select(Axis(1), &best); // [C, B]
    let backwards = row_peaks(&descriptors.t(), &source.map.matrix(), source.map.grid(), 1, cancellation)?;
    let cells = backwards.iter().filter_map(|row| row.peaks.first()).map(|peak| peak.cell);
    Ok(best.into_iter().zip(cells).collect())
}

fn beyond_centres(cell: CellPoint, grid: GridSize) -> CellPoint {
    let beyond = |position: f64, length: usize| position - position.clamp(0.0, (length - 1) as f64);
    CellPoint { x: beyond(cell.x, grid.width), y: beyond(cell.y, grid.height) }
}

/// Turns cells of the target into points of its picture.
struct Targets<'a> {
    geometry: Geometry,
    products: Option<&'a NeighbourProducts<f32>>,
    soft_argmax: SoftArgmax,
}

impl<'a> Targets<'a> {
    fn new(target: MatchSide<'a>, options: &MatchOptions) -> Self {
        let products = match options.refine {
            Refine::None => None,
            Refine::SoftArgmax => Some(target.map.neighbour_products()),
        };
        Self { geometry: target.map.geometry(target.image), products, soft_argmax: options.soft_argmax }
    }

    fn point_match(&self, query: usize, found: &Found) -> Option<PointMatch> {
        let candidates: Vec<Candidate> =
            found.row.peaks.iter().map(|peak| self.candidate(peak, found.beyond)).collect();
        let best = *candidates.first()?;
        Some(PointMatch {
            query,
            source: found.source,
            target: best.target,
            score: best.score,
            mutual: found.mutual,
            ratio: found.row.ratio(),
            inlier: None,
            candidates,
        })
    }

    fn candidate(&self, peak: &Peak, beyond: CellPoint) -> Candidate {
        let Some(products) = self.products else {
            return Candidate { target: self.geometry.cell_center(peak.cell), score: peak.score };
        };
        let width = self.geometry.grid.width;
        let refined = refine(peak, products, self.soft_argmax);
        // Between the outermost centres and the edge of the picture there are no descriptors to tell places apart: a
        // query out there keeps its distance from the outermost centre.
        let cell = CellPoint {
            x: (peak.cell % width) as f64 + f64::from(refined.dx) + beyond.x,
            y: (peak.cell / width) as f64 + f64::from(refined.dy) + beyond.y,
        };
        let PixelPoint { x, y } = self.geometry.pixel_from_cell(cell);
        let (right, bottom) = (f64::from(self.geometry.image.width) - 0.5, f64::from(self.geometry.image.height) - 0.5);
        Candidate { target: PixelPoint { x: x.clamp(-0.5, right), y: y.clamp(-0.5, bottom) }, score: refined.score }
    }
}

#[cfg(test)]
mod tests;
