//! Correspondences of two feature maps: nearest cells by cosine similarity, mutual matches, sub-cell points.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;

use super::refine::{SoftArgmax, refine};
use super::similarity::{Peak, PeakSearch, RowPeaks, as_cosine};
use super::{Cancellation, Cancelled};
use crate::features::{
    CellPoint, Geometry, GridSize, ImagePoints, NeighbourProducts, NormalizedMap, PixelPoint, descriptors_at,
    l2_normalize_rows,
};
use crate::image::ImageSize;
use ndarray::{Array2, Axis};
use rayon::prelude::*;

/// A feature map and the size of its image: one side of a match.
#[derive(Clone, Copy, Debug)]
pub struct MatchedImage<'a> {
    /// The features.
    pub map: &'a NormalizedMap,
    /// Size of the image, in pixels.
    pub image: ImageSize,
}

/// The two images that are matched. Their features are of the same model and layers.
#[derive(Clone, Copy, Debug)]
pub struct ImagePair<'a> {
    /// The image whose points are searched for.
    pub source: MatchedImage<'a>,
    /// The image in which they are searched for.
    pub target: MatchedImage<'a>,
}

/// The points of the source that are searched for in the target.
#[derive(Clone, Copy, Debug)]
pub enum Queries<'a> {
    /// Given points.
    Points(&'a ImagePoints),
    /// The centre of every cell of the source.
    Cells,
}

/// The way from the most similar cell to a point.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Refinement {
    /// The cell's centre.
    None,
    /// A point between cells, by a soft-argmax in a window around the cell.
    #[default]
    SoftArgmax,
}

/// Options of matching.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MatchOptions {
    /// Number of candidates for each query. Each is outside the 3×3 cells around every better one.
    pub top_k: NonZeroUsize,
    /// Keep only mutual nearest neighbours.
    pub mutual: bool,
    /// Keep only matches with at least this cosine similarity.
    pub min_score: Option<f32>,
    /// Keep only matches whose [`PointMatch::ratio`] is at most this.
    pub max_ratio: Option<f32>,
    /// Sub-cell refinement.
    pub refine: Refinement,
    /// Parameters of [`Refinement::SoftArgmax`].
    pub soft_argmax: SoftArgmax,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            top_k: NonZeroUsize::MIN,
            mutual: false,
            min_score: None,
            max_ratio: None,
            refine: Refinement::default(),
            soft_argmax: SoftArgmax::default(),
        }
    }
}

/// A possible match of a query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Point of the target, in pixels.
    pub target: PixelPoint,
    /// Cosine similarity of the descriptors at the query and at `target`, within [-1, 1].
    pub score: f32,
}

/// A query and its match.
#[derive(Clone, Debug, PartialEq)]
pub struct PointMatch {
    /// Index of the query among the given points, or of the source's cell in row-major order.
    pub query: usize,
    /// Point of the source, in pixels.
    pub source: PixelPoint,
    /// Point of the target, in pixels: that of the first candidate.
    pub target: PixelPoint,
    /// Cosine similarity of the first candidate, within [-1, 1].
    pub score: f32,
    /// Mutual nearest neighbours: the source's cell most similar to the best target cell is the query's own cell
    /// ([`Queries::Cells`]), or at most one cell away from the point ([`Queries::Points`]).
    pub mutual: bool,
    /// The best similarity outside the 3×3 cells around the best cell, divided by the best: 0 is unambiguous, 1 a tie.
    pub ratio: f32,
    /// Agreement with the geometry that [`super::verify`] found; `None` before verification.
    pub inlier: Option<bool>,
    /// One to `top_k` candidates, by falling similarity of their cells.
    pub candidates: Vec<Candidate>,
}

/// The reason why there are no matches.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MatchError {
    /// The descriptors have different lengths, because they are of different models or layers.
    #[error(
        "the source has {source_channels} channels and the target {target_channels}: both need the same model and layer"
    )]
    Channels {
        /// Channels of the source.
        source_channels: usize,
        /// Channels of the target.
        target_channels: usize,
    },
    /// The work was cancelled.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Finds the match of every query in the target, in the order of the queries, without those that the options filter out.
///
/// # Errors
/// [`MatchError`] if the maps have different numbers of channels, or if `cancellation` is cancelled.
pub fn find_correspondences(
    pair: ImagePair<'_>,
    queries: Queries<'_>,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<PointMatch>, MatchError> {
    pair.check_channels()?;
    let found = match queries {
        Queries::Cells => match_cells(pair, options, cancellation)?,
        Queries::Points(points) => match_points(pair, points, options, cancellation)?,
    };
    let refiner = TargetRefiner::new(pair.target, options);
    // Filters that need no refined point come first, because refining is the expensive part.
    let kept = found.par_iter().enumerate().filter(|(_, found)| options.keeps_cell(found));
    let matches = kept.filter_map(|(query, found)| refiner.point_match(query, found));
    Ok(matches.filter(|found| options.min_score.is_none_or(|least| found.score >= least)).collect())
}

impl MatchedImage<'_> {
    /// The geometry of the map over its image.
    pub fn geometry(&self) -> Geometry {
        self.map.geometry(self.image)
    }

    /// Descriptors at `points`, `[P, C]`, every row of length 1, or 0.
    pub(super) fn unit_descriptors_at(&self, points: &ImagePoints) -> Array2<f32> {
        let mut descriptors = descriptors_at(self.map, self.image, points); // [P, C]
        l2_normalize_rows(&mut descriptors);
        descriptors
    }
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

impl MatchOptions {
    fn keeps_cell(&self, found: &FoundCells) -> bool {
        (found.mutual || !self.mutual) && self.max_ratio.is_none_or(|most| found.row.ratio() <= most)
    }
}

/// A query and the target's cells most similar to it.
struct FoundCells {
    source: PixelPoint,
    /// Offset of the query from the rectangle of the source's cell centres, in cells; 0 inside it.
    beyond: CellPoint,
    row: RowPeaks,
    mutual: bool,
}

fn match_cells(
    ImagePair { source, target }: ImagePair<'_>,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<FoundCells>, Cancelled> {
    let queries = source.map.matrix().reversed_axes(); // [N, C]
    let search = PeakSearch { target: target.map.matrix(), grid: target.map.grid(), top_k: options.top_k.get() };
    let (rows, columns) = search.row_peaks_and_column_best(&queries, cancellation)?;
    let geometry = source.geometry();
    let found = rows.into_iter().enumerate().map(|(query, row)| FoundCells {
        source: geometry.cell_center(query),
        beyond: CellPoint { x: 0.0, y: 0.0 },
        mutual: row.peaks.first().is_some_and(|peak| columns.rows()[peak.cell] as usize == query),
        row,
    });
    Ok(found.collect())
}

fn match_points(
    pair @ ImagePair { source, target }: ImagePair<'_>,
    points: &ImagePoints,
    options: &MatchOptions,
    cancellation: &Cancellation,
) -> Result<Vec<FoundCells>, Cancelled> {
    let queries = source.unit_descriptors_at(points); // [P, C]
    let search = PeakSearch { target: target.map.matrix(), grid: target.map.grid(), top_k: options.top_k.get() };
    let rows = search.row_peaks(&queries.view(), cancellation)?;
    let reverse_matches = reverse_matches(pair, &rows, cancellation)?;
    let geometry = source.geometry();
    let found = points.as_slice().iter().zip(rows).map(|(&point, row)| {
        let cell = geometry.cell_from_pixel(point);
        let mutual = row.peaks.first().and_then(|peak| reverse_matches.get(&peak.cell)).is_some_and(|&reverse| {
            let (y, x) = ((reverse / geometry.grid.width) as f64, (reverse % geometry.grid.width) as f64);
            (x - cell.x).abs() <= 1.0 && (y - cell.y).abs() <= 1.0
        });
        FoundCells { source: point, beyond: offset_beyond_centres(cell, geometry.grid), row, mutual }
    });
    Ok(found.collect())
}

/// For the best target cell of each row, the source's cell most similar to it.
fn reverse_matches(
    ImagePair { source, target }: ImagePair<'_>,
    rows: &[RowPeaks],
    cancellation: &Cancellation,
) -> Result<BTreeMap<usize, usize>, Cancelled> {
    let best: BTreeSet<usize> = rows.iter().filter_map(|row| row.peaks.first()).map(|peak| peak.cell).collect();
    let best: Vec<usize> = best.into_iter().collect();
    let descriptors = target.map.matrix().select(Axis(1), &best); // [C, B]
    let search = PeakSearch { target: source.map.matrix(), grid: source.map.grid(), top_k: 1 };
    let reverse = search.row_peaks(&descriptors.t(), cancellation)?;
    let cells = reverse.iter().filter_map(|row| row.peaks.first()).map(|peak| peak.cell);
    Ok(best.into_iter().zip(cells).collect())
}

/// Offset of `cell` from the nearest point between the centres of the outermost cells.
fn offset_beyond_centres(cell: CellPoint, grid: GridSize) -> CellPoint {
    let beyond = |position: f64, length: usize| position - position.clamp(0.0, (length - 1) as f64);
    CellPoint { x: beyond(cell.x, grid.width), y: beyond(cell.y, grid.height) }
}

/// Refines cells of the target to points of its image.
struct TargetRefiner<'a> {
    geometry: Geometry,
    products: Option<&'a NeighbourProducts<f32>>,
    soft_argmax: SoftArgmax,
}

impl<'a> TargetRefiner<'a> {
    fn new(target: MatchedImage<'a>, options: &MatchOptions) -> Self {
        let products = match options.refine {
            Refinement::None => None,
            Refinement::SoftArgmax => Some(target.map.neighbour_products()),
        };
        Self { geometry: target.geometry(), products, soft_argmax: options.soft_argmax }
    }

    fn point_match(&self, query: usize, found: &FoundCells) -> Option<PointMatch> {
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
            return Candidate { target: self.geometry.cell_center(peak.cell), score: as_cosine(peak.score) };
        };
        let width = self.geometry.grid.width;
        let refined = refine(peak, products, self.soft_argmax);
        // Beyond the centres of the outermost cells the descriptors are constant and tell no points apart, so a query there
        // keeps its offset from the outermost centre.
        let cell = CellPoint {
            x: (peak.cell % width) as f64 + f64::from(refined.dx) + beyond.x,
            y: (peak.cell / width) as f64 + f64::from(refined.dy) + beyond.y,
        };
        let PixelPoint { x, y } = self.geometry.pixel_from_cell(cell);
        let (right, bottom) = (f64::from(self.geometry.image.width) - 0.5, f64::from(self.geometry.image.height) - 0.5);
        let target = PixelPoint { x: x.clamp(-0.5, right), y: y.clamp(-0.5, bottom) };
        Candidate { target, score: as_cosine(refined.score) }
    }
}

#[cfg(test)]
mod tests;
