//! Best cells of the target for many descriptors, without ever holding the whole similarity matrix.
//!
//! The matrix product runs block by block on rayon's pool. A block's rows are reduced while they are in the cache: to
//! the best cells of each row and, if asked, to the best row of each column so far. Equal similarities are won by the
//! lowest index, so that the result does not depend on which thread is done first.

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::product::multiply;
use super::{Cancellation, Cancelled};
use crate::features::GridSize;

/// The similarities of one block; two threads' blocks and the target's packed panel share the outer caches.
const BLOCK_VALUES: usize = 1 << 19;
const MIN_BLOCK_ROWS: usize = 16;
const MAX_BLOCK_ROWS: usize = 256;
/// A peak knows the similarities of so many rows and columns around it: as many as the widest refinement looks at.
pub(super) const AROUND: usize = 5;

/// A cell of the target that looks like the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peak {
    /// Row-major index of the cell.
    pub(super) cell: usize,
    /// Its similarity.
    pub(super) score: f32,
    /// The similarities of the 5×5 cells around it, row by row; outside the grid negative infinity.
    pub(super) around: [f32; AROUND * AROUND],
}

/// What a row of similarities is reduced to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RowPeaks {
    /// Up to `top_k` peaks by falling score, none within the 3×3 cells around a better one.
    pub(super) peaks: Vec<Peak>,
    /// The best similarity outside the 3×3 cells around the best cell; nothing if the grid ends there.
    pub(super) runner_up: Option<f32>,
}

/// For every cell of the target, the query that is most similar.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnBest {
    scores: Vec<f32>,
    rows: Vec<u32>,
}

impl RowPeaks {
    /// The runner-up over the best: 0 if nothing competes, 1 if even the best is not similar at all.
    pub(super) fn ratio(&self) -> f32 {
        match (self.peaks.first(), self.runner_up) {
            (Some(best), Some(second)) if best.score > 0.0 => (second / best.score).max(0.0),
            (_, Some(_)) => 1.0,
            (_, None) => 0.0,
        }
    }
}

impl ColumnBest {
    fn new(columns: usize) -> Self {
        Self { scores: vec![f32::NEG_INFINITY; columns], rows: vec![u32::MAX; columns] }
    }

    /// The most similar query for each cell; `u32::MAX` where there was none.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    #[expect(clippy::float_cmp, reason = "ties are told exactly")]
    fn take_in(&mut self, row: u32, similarities: &[f32]) {
        for ((best, best_row), &score) in self.scores.iter_mut().zip(&mut self.rows).zip(similarities) {
            // Blocks come to an accumulator in any order, hence the second half. Selects, not branches: this loop runs over every
            // entry of the matrix and has to be compiled to vector instructions.
            let better = score > *best || (score == *best && row < *best_row);
            *best = if better { score } else { *best };
            *best_row = if better { row } else { *best_row };
        }
    }

    #[expect(clippy::float_cmp, reason = "ties are told exactly")]
    fn merged(mut self, other: &Self) -> Self {
        let mine = self.scores.iter_mut().zip(&mut self.rows);
        for ((best, best_row), (&score, &row)) in mine.zip(other.scores.iter().zip(&other.rows)) {
            if score > *best || (score == *best && row < *best_row) {
                (*best, *best_row) = (score, row);
            }
        }
        self
    }
}

/// The peaks of every query's similarities with the cells of a target: `queries` is `[Q, C]`, `target` `[C, M]` with
/// the cells of `grid` as columns.
pub(super) fn row_peaks(
    queries: &ArrayView2<'_, f32>,
    target: &ArrayView2<'_, f32>,
    grid: GridSize,
    top_k: usize,
    cancellation: &Cancellation,
) -> Result<Vec<RowPeaks>, Cancelled> {
    let mut results = vec![RowPeaks::default(); queries.nrows()];
    if queries.nrows() <= MAX_BLOCK_ROWS && queries.nrows() * target.ncols() <= BLOCK_VALUES {
        let mut similarities = similarities_by_columns(queries, target);
        let rows = similarities.par_chunks_exact_mut(grid.cells());
        results.par_iter_mut().zip(rows).for_each(|(result, row)| *result = peaks_of(row, grid, top_k));
        return Ok(results);
    }
    let rows = block_rows(queries.nrows(), target.ncols());
    results.par_chunks_mut(rows).enumerate().try_for_each_init(Vec::new, |buffer, (block, results)| {
        cancellation.check()?;
        let similarities = block_similarities(queries, target, block * rows, results.len(), buffer);
        for (result, row) in results.iter_mut().zip(similarities.chunks_exact_mut(grid.cells())) {
            *result = peaks_of(row, grid, top_k);
        }
        Ok(())
    })?;
    Ok(results)
}

/// As [`row_peaks`], and with it the best query for each cell.
pub(super) fn row_peaks_and_column_best(
    queries: &ArrayView2<'_, f32>,
    target: &ArrayView2<'_, f32>,
    grid: GridSize,
    top_k: usize,
    cancellation: &Cancellation,
) -> Result<(Vec<RowPeaks>, ColumnBest), Cancelled> {
    let mut results = vec![RowPeaks::default(); queries.nrows()];
    let rows = block_rows(queries.nrows(), target.ncols());
    let columns = results
        .par_chunks_mut(rows)
        .enumerate()
        .try_fold(
            || (ColumnBest::new(grid.cells()), Vec::new()),
            |(mut columns, mut buffer), (block, results)| {
                cancellation.check()?;
                let first = block * rows;
                let similarities = block_similarities(queries, target, first, results.len(), &mut buffer);
                let lines = similarities.chunks_exact_mut(grid.cells());
                for (index, (result, row)) in results.iter_mut().zip(lines).enumerate() {
                    columns.take_in((first + index) as u32, row);
                    *result = peaks_of(row, grid, top_k);
                }
                Ok((columns, buffer))
            },
        )
        .map(|folded| folded.map(|(columns, _)| columns))
        .try_reduce(|| ColumnBest::new(grid.cells()), |one, other| Ok(one.merged(&other)))?;
    Ok((results, columns))
}

/// Rows a block has: as many as the cache likes, but few enough that every thread gets some.
pub(super) fn block_rows(queries: usize, columns: usize) -> usize {
    let fitting = (BLOCK_VALUES / columns.max(1)).clamp(MIN_BLOCK_ROWS, MAX_BLOCK_ROWS);
    fitting.min(queries.div_ceil(rayon::current_num_threads())).max(1)
}

/// The similarities of `count` queries from `first` on, row by row, in `buffer`.
pub(super) fn block_similarities<'a>(
    queries: &ArrayView2<'_, f32>,
    target: &ArrayView2<'_, f32>,
    first: usize,
    count: usize,
    buffer: &'a mut Vec<f32>,
) -> &'a mut [f32] {
    let columns = target.ncols();
    buffer.resize(count * columns, 0.0);
    let mut product = ArrayViewMut2::from_shape((count, columns), buffer.as_mut_slice()).expect("resized to fit");
    multiply(&queries.slice(s![first..first + count, ..]), target, &mut product); // [count, M]
    buffer
}

/// All similarities, row by row. With few queries the dearest part of a product is bringing the target into the order
/// that the kernel wants, so here each thread does that with its own columns, instead of every thread with them all.
fn similarities_by_columns(queries: &ArrayView2<'_, f32>, target: &ArrayView2<'_, f32>) -> Vec<f32> {
    let mut similarities = vec![0.0_f32; queries.nrows() * target.ncols()];
    let mut product = ArrayViewMut2::from_shape((queries.nrows(), target.ncols()), similarities.as_mut_slice())
        .expect("the buffer was made for this shape");
    let width = target.ncols().div_ceil(rayon::current_num_threads()).next_multiple_of(16);
    let parts: Vec<_> =
        product.axis_chunks_iter_mut(Axis(1), width).zip(target.axis_chunks_iter(Axis(1), width)).collect();
    parts.into_par_iter().for_each(|(mut part, target)| multiply(queries, &target, &mut part));
    similarities
}

/// The peaks of one row of similarities, which is used up.
fn peaks_of(row: &mut [f32], grid: GridSize, top_k: usize) -> RowPeaks {
    let mut row = Row::new(row);
    let mut result = RowPeaks::default();
    // What was blotted out around the peaks so far: a later peak may have it in its own neighbourhood.
    let mut blotted: Vec<(usize, f32)> = Vec::new();
    while let Some((cell, score)) = row.best() {
        if result.peaks.len() == 1 && result.runner_up.is_none() {
            result.runner_up = Some(score);
        }
        if result.peaks.len() == top_k {
            break;
        }
        let around = cells_around::<AROUND, { AROUND * AROUND }>(cell, grid).map(|neighbour| {
            let Some(neighbour) = neighbour else { return f32::NEG_INFINITY };
            let value = row.values[neighbour];
            if value > f32::NEG_INFINITY {
                return value;
            }
            blotted.iter().find(|(cell, _)| *cell == neighbour).map_or(value, |&(_, value)| value)
        });
        for neighbour in cells_around::<3, 9>(cell, grid).into_iter().flatten() {
            if row.values[neighbour] > f32::NEG_INFINITY {
                blotted.push((neighbour, row.values[neighbour]));
                row.blot_out(neighbour);
            }
        }
        result.peaks.push(Peak { cell, score, around });
    }
    result
}

/// A row of similarities with the maximum of every segment of it, so that only the first peak costs a look at every
/// value.
struct Row<'a> {
    values: &'a mut [f32],
    maxima: Vec<f32>,
}

impl<'a> Row<'a> {
    const SEGMENT: usize = 64;

    fn new(values: &'a mut [f32]) -> Self {
        let maxima = values.chunks(Self::SEGMENT).map(maximum).collect();
        Self { values, maxima }
    }

    /// The first cell with the largest value, unless everything is blotted out.
    #[expect(clippy::float_cmp, reason = "looks for a value that was just read there")]
    fn best(&self) -> Option<(usize, f32)> {
        let score = maximum(&self.maxima);
        let segment = self.maxima.iter().position(|&value| value == score).filter(|_| score > f32::NEG_INFINITY)?;
        let first = segment * Self::SEGMENT;
        let place = self.values[first..].iter().position(|&value| value == score)?;
        Some((first + place, score))
    }

    #[expect(clippy::float_cmp, reason = "the maximum was read there")]
    fn blot_out(&mut self, cell: usize) {
        let segment = cell / Self::SEGMENT;
        let was = std::mem::replace(&mut self.values[cell], f32::NEG_INFINITY);
        if was == self.maxima[segment] {
            let end = self.values.len().min((segment + 1) * Self::SEGMENT);
            self.maxima[segment] = maximum(&self.values[segment * Self::SEGMENT..end]);
        }
    }
}

/// The indices of the `SIDE`×`SIDE` (`COUNT` in all) cells around `cell`, row by row; nothing outside the grid.
fn cells_around<const SIDE: usize, const COUNT: usize>(cell: usize, grid: GridSize) -> [Option<usize>; COUNT] {
    let (row, column) = (cell / grid.width, cell % grid.width);
    std::array::from_fn(|place| {
        let row = (row + place / SIDE).checked_sub(SIDE / 2).filter(|&row| row < grid.height)?;
        let column = (column + place % SIDE).checked_sub(SIDE / 2).filter(|&column| column < grid.width)?;
        Some(row * grid.width + column)
    })
}

/// The largest value; NaN is never larger. Sixteen running maxima, because one alone cannot be vectorised.
pub(super) fn maximum(values: &[f32]) -> f32 {
    let (blocks, rest) = values.as_chunks::<16>();
    let mut lanes = [f32::NEG_INFINITY; 16];
    for block in blocks {
        for (lane, &value) in lanes.iter_mut().zip(block) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |best, &value| if value > best { value } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;
    use proptest::prelude::*;

    fn noise(rows: usize, columns: usize, seed: u32) -> Array2<f32> {
        let mut state = seed | 1;
        Array2::from_shape_simple_fn((rows, columns), || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        })
    }

    #[test]
    fn peaks_keep_their_distance_and_their_neighbours() {
        let grid = GridSize { width: 4, height: 2 };
        let row = [0.1, 0.9, 0.8, 0.3, 0.2, 0.4, 0.5, 0.7];
        let peaks = peaks_of(&mut row.clone(), grid, 3);
        assert_eq!(peaks.peaks.iter().map(|peak| peak.cell).collect::<Vec<_>>(), [1, 7]);
        assert_eq!(peaks.runner_up, Some(0.7));
        // Columns 1 to the left of the grid to 3, rows 2 above it to 2 below: the grid's two rows are in the middle.
        let none = f32::NEG_INFINITY;
        let (above, first, second) = ([none; 10], [none, 0.1, 0.9, 0.8, 0.3], [none, 0.2, 0.4, 0.5, 0.7]);
        assert_eq!(peaks.peaks[0].around.to_vec(), [&above[..], &first, &second, &[none; 5]].concat());
        // What the first peak blotted out is known to the second.
        let (above, first, second) = ([none; 5], [0.9, 0.8, 0.3, none, none], [0.4, 0.5, 0.7, none, none]);
        assert_eq!(peaks.peaks[1].around.to_vec(), [&above[..], &first, &second, &[none; 10]].concat());
    }

    #[test]
    fn a_single_cell_has_no_runner_up() {
        let peaks = peaks_of(&mut [0.5], GridSize { width: 1, height: 1 }, 2);
        assert_eq!((peaks.peaks.len(), peaks.runner_up), (1, None));
    }

    #[test]
    fn nothing_is_computed_for_nobody() {
        let grid = GridSize { width: 30, height: 20 };
        let (a, b) = (noise(2000, 5, 1), noise(5, grid.cells(), 2));
        let cancellation = Cancellation::default();
        cancellation.cancel();
        assert_eq!(row_peaks(&a.view(), &b.view(), grid, 1, &cancellation), Err(Cancelled));
        assert_eq!(row_peaks_and_column_best(&a.view(), &b.view(), grid, 1, &cancellation), Err(Cancelled));
    }

    proptest! {
        #[test]
        fn blocks_change_nothing(queries in 1_usize..80, width in 1_usize..9, height in 1_usize..9, seed: u32) {
            let grid = GridSize { width, height };
            let (a, b) = (noise(queries, 5, seed), noise(5, grid.cells(), !seed));
            let patience = Cancellation::default();
            let (rows, columns) = row_peaks_and_column_best(&a.view(), &b.view(), grid, 2, &patience).unwrap();
            let cells = |rows: &[RowPeaks]| -> Vec<Vec<usize>> {
                rows.iter().map(|row| row.peaks.iter().map(|peak| peak.cell).collect()).collect()
            };
            prop_assert_eq!(cells(&rows), cells(&row_peaks(&a.view(), &b.view(), grid, 2, &patience).unwrap()));
            let full = a.dot(&b);
            for (row, peaks) in full.rows().into_iter().zip(&rows) {
                let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((peaks.peaks[0].score - best).abs() < 1e-5);
                prop_assert!(peaks.peaks.is_sorted_by(|one, next| one.score >= next.score));
            }
            for (column, &row) in full.columns().into_iter().zip(columns.rows()) {
                let best = column.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                prop_assert!((column[row as usize] - best).abs() < 1e-5);
            }
        }
    }
}
