//! Propagation of masks through a clip, the usual evaluation of features on DAVIS.
//!
//! The algorithm is that of Jabri, Owens and Efros, *Space-Time Correspondence as a Contrastive Random Walk*, `NeurIPS`
//! 2020, with the settings of Caron et al., *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021: a cell
//! takes the labels of the 5 most similar cells of the first frame and of the 7 frames before it, among the cells at most
//! 12 rows and columns away, weighted by a softmax of their cosine similarities at temperature 0.1. A frame passes on the
//! label shares that it received, not its labels.
//!
//! It departs from Caron et al. in two points: a cell of the first frame has the shares of all its pixels' labels, not the
//! label of one pixel, and shares become labels of pixels by bilinear interpolation alone, without rescaling each object's
//! shares to 0 and 1.

use std::collections::VecDeque;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::feature_method::DescribedPicture;
use densecl_vision::features::{AxisPosition, GridSize, NormalizedMap};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::multiply;

const FRAMES_BEFORE: usize = 7;
const RADIUS: usize = 12;
const NEAREST: usize = 5;
const TEMPERATURE: f32 = 0.1;

/// Propagates the labels of a first frame to the later frames.
pub(super) struct MaskPropagator {
    /// The labels of the first frame, in rising order.
    labels: Vec<u8>,
    size: ImageSize,
    first: LabelledFrame,
    /// The latest frames, the last one at the end.
    before: VecDeque<LabelledFrame>,
}

/// A frame's features and the label shares of its cells.
struct LabelledFrame {
    frame: Arc<DescribedPicture>,
    /// `[cells, labels]`.
    shares: Array2<f32>,
}

impl MaskPropagator {
    /// A propagator that starts with `mask`, the label of every pixel of `first`.
    pub(super) fn new(first: &Arc<DescribedPicture>, mask: &[u8]) -> Self {
        let labels: Vec<u8> = (0..=u8::MAX).filter(|label| mask.contains(label)).collect();
        let shares = cell_shares(mask, &labels, first.size(), first.map.grid());
        let first_frame = LabelledFrame { frame: Arc::clone(first), shares };
        Self { labels, size: first.size(), first: first_frame, before: VecDeque::new() }
    }

    /// Propagates the labels to the next frame, which has the size of the first, and returns the label of its every pixel.
    pub(super) fn propagate_to(&mut self, frame: &Arc<DescribedPicture>) -> Vec<u8> {
        let grid = frame.map.grid();
        let rows: Vec<Vec<f32>> = (0..grid.height).into_par_iter().map(|row| self.row(&frame.map, row)).collect();
        let shares = Array2::from_shape_vec((grid.cells(), self.labels.len()), rows.concat())
            .expect("every row has a share for each cell and label"); // [cells, labels]
        let labels = pixel_labels(&shares, &self.labels, grid, self.size);
        self.before.push_back(LabelledFrame { frame: Arc::clone(frame), shares });
        if self.before.len() > FRAMES_BEFORE {
            self.before.pop_front();
        }
        labels
    }

    /// The label shares of the cells of one row, `[columns, labels]`.
    fn row(&self, map: &NormalizedMap, row: usize) -> Vec<f32> {
        let grid = map.grid();
        let rows = row.saturating_sub(RADIUS)..(row + RADIUS + 1).min(grid.height);
        let first_cell = rows.start * grid.width;
        let queries = map.matrix().slice_move(s![.., row * grid.width..(row + 1) * grid.width]).reversed_axes(); // [columns, C]
        let frames: Vec<&LabelledFrame> = std::iter::once(&self.first).chain(&self.before).collect();
        let similarities: Vec<Array2<f32>> = frames
            .iter()
            .map(|frame| {
                let cells: ArrayView2<'_, f32> =
                    frame.frame.map.matrix().slice_move(s![.., first_cell..rows.end * grid.width]); // [C, cells around]
                let mut product = Array2::zeros((grid.width, cells.ncols()));
                multiply(&queries, &cells, &mut product.view_mut()); // [columns, cells around]
                product
            })
            .collect();
        let mut shares = vec![0.0; grid.width * self.labels.len()]; // [columns, labels]
        for (column, shares) in shares.chunks_exact_mut(self.labels.len()).enumerate() {
            let mut nearest = NearestCells::default();
            for (frame, similarities) in similarities.iter().enumerate() {
                for line in 0..rows.len() {
                    for x in column.saturating_sub(RADIUS)..(column + RADIUS + 1).min(grid.width) {
                        let cell = line * grid.width + x;
                        nearest.insert(similarities[[column, cell]], frame, first_cell + cell);
                    }
                }
            }
            for (weight, frame, cell) in nearest.weights() {
                for (share, &from) in shares.iter_mut().zip(frames[frame].shares.row(cell)) {
                    *share += weight * from;
                }
            }
        }
        shares
    }
}

/// The [`NEAREST`] most similar cells so far as `(similarity, frame, cell)`, by falling similarity.
#[derive(Default)]
struct NearestCells(Vec<(f32, usize, usize)>);

impl NearestCells {
    /// Inserts a cell if it is among the most similar.
    fn insert(&mut self, similarity: f32, frame: usize, cell: usize) {
        if self.0.len() == NEAREST && self.0.last().is_some_and(|(least, ..)| similarity <= *least) {
            return;
        }
        let rank = self.0.partition_point(|(better, ..)| *better >= similarity);
        self.0.insert(rank, (similarity, frame, cell));
        self.0.truncate(NEAREST);
    }

    /// The cells as `(weight, frame, cell)` with the softmax of the similarities as weights, which add up to 1.
    fn weights(self) -> Vec<(f32, usize, usize)> {
        let best = self.0.first().map_or(0.0, |(best, ..)| *best);
        let weights: Vec<f32> = self.0.iter().map(|(one, ..)| ((one - best) / TEMPERATURE).exp()).collect();
        let total: f32 = weights.iter().sum();
        self.0.iter().zip(weights).map(|((_, frame, cell), weight)| (weight / total, *frame, *cell)).collect()
    }
}

/// The share of each label among the pixels whose centres are in each cell, `[cells, labels]`.
fn cell_shares(mask: &[u8], labels: &[u8], size: ImageSize, grid: GridSize) -> Array2<f32> {
    let mut shares = Array2::zeros((grid.cells(), labels.len()));
    let cell_along = |pixel: usize, pixels: u32, cells: usize| (2 * pixel + 1) * cells / (2 * pixels as usize);
    for (index, label) in mask.iter().enumerate() {
        let (x, y) = (index % size.width as usize, index / size.width as usize);
        let column = cell_along(x, size.width, grid.width);
        let cell = cell_along(y, size.height, grid.height) * grid.width + column;
        if let Ok(label) = labels.binary_search(label) {
            shares[[cell, label]] += 1.0;
        }
    }
    for mut cell in shares.rows_mut() {
        let total = cell.sum();
        // An image smaller than its grid leaves cells without a pixel.
        if total > 0.0 {
            cell /= total;
        }
    }
    shares
}

/// The label with the largest share at each pixel, with shares interpolated bilinearly between the centres of cells.
fn pixel_labels(shares: &Array2<f32>, labels: &[u8], grid: GridSize, size: ImageSize) -> Vec<u8> {
    let columns: Vec<AxisPosition> =
        (0..size.width as usize).map(|x| AxisPosition::from_pixel(x, size.width, grid.width)).collect();
    let lines = (0..size.height as usize).into_par_iter().map(|y| {
        let row = AxisPosition::from_pixel(y, size.height, grid.height);
        let label = |column: &AxisPosition| {
            let share = |label: usize| {
                let at = |row: usize, column: usize| shares[[row * grid.width + column, label]];
                let across = |row: usize| {
                    at(row, column.before) * (1.0 - column.fraction) + at(row, column.after) * column.fraction
                };
                across(row.before) * (1.0 - row.fraction) + across(row.after) * row.fraction
            };
            let best = (0..labels.len()).fold((0, f32::NEG_INFINITY), |best, label| {
                let share = share(label);
                if share > best.1 { (label, share) } else { best }
            });
            labels.get(best.0).copied().unwrap_or_default()
        };
        columns.iter().map(label).collect::<Vec<u8>>()
    });
    lines.collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests;
