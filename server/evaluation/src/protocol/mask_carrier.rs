//! Masks carried through a clip, as DAVIS is evaluated for features without a tracker.
//!
//! Jabri, Owens and Efros, *Space-Time Correspondence as a Contrastive Random Walk* (2020), with the settings and details
//! of Caron et al., *Emerging Properties in Self-Supervised Vision Transformers* (2021): a cell takes the labels of the 5
//! most similar cells of the first frame and of the 7 frames before it, among those at most 12 rows and columns away,
//! weighted by a softmax of their cosines at temperature 0.1. What a frame was given, as shares, is what it passes on.
//!
//! Two details differ: a cell of the first frame has the shares that its pixels have, not the label of one of them, and
//! shares become labels of pixels by bilinear interpolation alone, without stretching each object's to 0 and 1.

use std::collections::VecDeque;
use std::sync::Arc;

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use crate::contestant::Described;
use densecl_vision::features::{GridSize, NormalizedMap, neighbours};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::multiply;

const FRAMES_BEFORE: usize = 7;
const RADIUS: usize = 12;
const NEAREST: usize = 5;
const TEMPERATURE: f32 = 0.1;

/// Carries the labels of a first frame along.
pub(super) struct MaskCarrier {
    labels: Vec<u8>,
    size: ImageSize,
    first: Labelled,
    before: VecDeque<Labelled>,
}

/// A frame's features, and the shares of the labels in its cells, `[cells, labels]`.
struct Labelled {
    frame: Arc<Described>,
    shares: Array2<f32>,
}

impl MaskCarrier {
    /// Starts with the label of every pixel of `first`.
    pub(super) fn new(first: &Arc<Described>, mask: &[u8]) -> Self {
        let labels: Vec<u8> = (0..=u8::MAX).filter(|label| mask.contains(label)).collect();
        let shares = cell_shares(mask, &labels, first.size(), first.map.grid());
        let first_frame = Labelled { frame: Arc::clone(first), shares };
        Self { labels, size: first.size(), first: first_frame, before: VecDeque::new() }
    }

    /// The label of every pixel of the next frame, which has the size of the first.
    pub(super) fn carry_to(&mut self, frame: &Arc<Described>) -> Vec<u8> {
        let grid = frame.map.grid();
        let rows: Vec<Vec<f32>> = (0..grid.height).into_par_iter().map(|row| self.row(&frame.map, row)).collect();
        let shares = Array2::from_shape_vec((grid.cells(), self.labels.len()), rows.concat())
            .expect("every row has its cells' shares");
        let labels = pixel_labels(&shares, &self.labels, grid, self.size);
        self.before.push_back(Labelled { frame: Arc::clone(frame), shares });
        if self.before.len() > FRAMES_BEFORE {
            self.before.pop_front();
        }
        labels
    }

    /// The shares of the cells of a row, `[columns, labels]`.
    fn row(&self, map: &NormalizedMap, row: usize) -> Vec<f32> {
        let grid = map.grid();
        let rows = row.saturating_sub(RADIUS)..(row + RADIUS + 1).min(grid.height);
        let first_cell = rows.start * grid.width;
        let queries = map.matrix().slice_move(s![.., row * grid.width..(row + 1) * grid.width]).reversed_axes();
        let frames: Vec<&Labelled> = std::iter::once(&self.first).chain(&self.before).collect();
        let similarities: Vec<Array2<f32>> = frames
            .iter()
            .map(|frame| {
                let cells: ArrayView2<'_, f32> =
                    frame.frame.map.matrix().slice_move(s![.., first_cell..rows.end * grid.width]);
                let mut product = Array2::zeros((grid.width, cells.ncols()));
                multiply(&queries, &cells, &mut product.view_mut()); // [columns, cells around the row]
                product
            })
            .collect();
        let mut shares = vec![0.0; grid.width * self.labels.len()];
        for (column, shares) in shares.chunks_exact_mut(self.labels.len()).enumerate() {
            let mut nearest = Nearest::default();
            for (frame, similarities) in similarities.iter().enumerate() {
                for line in 0..rows.len() {
                    for x in column.saturating_sub(RADIUS)..(column + RADIUS + 1).min(grid.width) {
                        let cell = line * grid.width + x;
                        nearest.offer(similarities[[column, cell]], frame, first_cell + cell);
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

/// The most similar cells so far, by falling similarity.
#[derive(Default)]
struct Nearest(Vec<(f32, usize, usize)>);

impl Nearest {
    fn offer(&mut self, similarity: f32, frame: usize, cell: usize) {
        if self.0.len() == NEAREST && self.0.last().is_some_and(|(least, ..)| similarity <= *least) {
            return;
        }
        let rank = self.0.partition_point(|(better, ..)| *better >= similarity);
        self.0.insert(rank, (similarity, frame, cell));
        self.0.truncate(NEAREST);
    }

    /// `(weight, frame, cell)`; the weights add up to 1.
    fn weights(self) -> Vec<(f32, usize, usize)> {
        let best = self.0.first().map_or(0.0, |(best, ..)| *best);
        let weights: Vec<f32> = self.0.iter().map(|(one, ..)| ((one - best) / TEMPERATURE).exp()).collect();
        let total: f32 = weights.iter().sum();
        self.0.iter().zip(weights).map(|((_, frame, cell), weight)| (weight / total, *frame, *cell)).collect()
    }
}

/// The shares of the labels among the pixels whose centres are in each cell, `[cells, labels]`.
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
        // A picture smaller than its grid leaves cells without a pixel.
        if total > 0.0 {
            cell /= total;
        }
    }
    shares
}

/// The label whose share, interpolated between the centres of cells, is the largest at each pixel.
fn pixel_labels(shares: &Array2<f32>, labels: &[u8], grid: GridSize, size: ImageSize) -> Vec<u8> {
    let between = |pixel: usize, pixels: u32, cells: usize| {
        neighbours((pixel as f64 + 0.5) * cells as f64 / f64::from(pixels) - 0.5, cells)
    };
    let columns: Vec<_> = (0..size.width as usize).map(|x| between(x, size.width, grid.width)).collect();
    let lines = (0..size.height as usize).into_par_iter().map(|y| {
        let (above, below, down) = between(y, size.height, grid.height);
        let label = |&(left, right, across): &(usize, usize, f32)| {
            let share = |label: usize| {
                let at = |row: usize, column: usize| shares[[row * grid.width + column, label]];
                let upper = at(above, left) * (1.0 - across) + at(above, right) * across;
                let lower = at(below, left) * (1.0 - across) + at(below, right) * across;
                upper * (1.0 - down) + lower * down
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
