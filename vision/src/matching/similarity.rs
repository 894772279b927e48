//! The most similar cells of the target for many descriptors, without the whole similarity matrix in memory.
//!
//! The matrix product runs in blocks of rows on rayon's pool. A block's rows are reduced while they are in the cache: to
//! the best cells of each row and, if needed, to the best row of each column so far. Of equal similarities the one with
//! the lowest index wins, so that the result does not depend on the order in which threads finish.

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use super::{Cancellation, Cancelled};
use crate::features::GridSize;
use crate::product::multiply;

/// Similarities of one block. Two threads' blocks and the target's packed panel share the outer caches.
const BLOCK_VALUES: usize = 1 << 19;
const MIN_BLOCK_ROWS: usize = 16;
const MAX_BLOCK_ROWS: usize = 256;
/// Rows and columns of the similarities that a [`Peak`] holds: as many as the widest refinement reads.
pub(super) const AROUND: usize = 5;

/// A dot product of descriptors of length 1 as a cosine. Rounding puts some of them a few millionths beyond -1 or 1. It is
/// done where a similarity leaves this module's searches, not before: which of two cells is better stays as computed.
pub(super) fn as_cosine(product: f32) -> f32 {
    product.clamp(-1.0, 1.0)
}

/// A cell of the target at which the similarity with a query has a maximum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peak {
    /// Row-major index of the cell.
    pub(super) cell: usize,
    /// Cosine similarity of the cell.
    pub(super) score: f32,
    /// Similarities of the 5×5 cells around it, row by row; negative infinity outside the grid.
    pub(super) around: [f32; AROUND * AROUND],
}

/// The peaks of one row of similarities.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct RowPeaks {
    /// Up to `top_k` peaks by falling score, none within the 3×3 cells around a better one.
    pub(super) peaks: Vec<Peak>,
    /// The best similarity outside the 3×3 cells around the best cell; `None` if there are no other cells.
    pub(super) runner_up: Option<f32>,
}

/// For every cell of the target, the most similar query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ColumnBest {
    scores: Vec<f32>,
    rows: Vec<u32>,
}

impl RowPeaks {
    /// The runner-up divided by the best: 0 if there is no runner-up, 1 if even the best similarity is not positive.
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

    /// The most similar query for each cell; `u32::MAX` if there was none.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// Updates each cell with the similarities of query `row`, `[M]`.
    #[expect(clippy::float_cmp, reason = "ties are exact")]
    fn update(&mut self, row: u32, similarities: &[f32]) {
        for ((best, best_row), &score) in self.scores.iter_mut().zip(&mut self.rows).zip(similarities) {
            // Blocks reach an accumulator in any order, hence the second condition. Selects instead of branches, because
            // this loop runs over every entry of the matrix and must compile to vector instructions.
            let better = score > *best || (score == *best && row < *best_row);
            *best = if better { score } else { *best };
            *best_row = if better { row } else { *best_row };
        }
    }

    #[expect(clippy::float_cmp, reason = "ties are exact")]
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

/// A search for the cells of a target that are most similar to queries.
pub(super) struct PeakSearch<'a> {
    /// Unit descriptors of the target, `[C, M]`, with the cells of `grid` as columns.
    pub(super) target: ArrayView2<'a, f32>,
    /// The target's cells.
    pub(super) grid: GridSize,
    /// Largest number of peaks of each query.
    pub(super) top_k: usize,
}

impl PeakSearch<'_> {
    /// The peaks of every query's similarities with the target; `queries` is `[Q, C]`.
    pub(super) fn row_peaks(
        &self,
        queries: &ArrayView2<'_, f32>,
        cancellation: &Cancellation,
    ) -> Result<Vec<RowPeaks>, Cancelled> {
        let Self { target, grid, top_k } = self;
        let mut results = vec![RowPeaks::default(); queries.nrows()]; // [Q]
        if queries.nrows() <= MAX_BLOCK_ROWS && queries.nrows() * target.ncols() <= BLOCK_VALUES {
            let mut similarities = similarities_by_columns(queries, target); // [Q, M]
            let rows = similarities.par_chunks_exact_mut(grid.cells());
            results.par_iter_mut().zip(rows).for_each(|(result, row)| *result = find_peaks(row, *grid, *top_k));
            return Ok(results);
        }
        let rows = block_rows(queries.nrows(), target.ncols());
        results.par_chunks_mut(rows).enumerate().try_for_each_init(Vec::new, |buffer, (block, results)| {
            cancellation.check()?;
            let first = block * rows;
            let queries = queries.slice(s![first..first + results.len(), ..]); // [rows, C]
            let similarities = block_similarities(&queries, target, buffer); // [rows, M]
            for (result, row) in results.iter_mut().zip(similarities.chunks_exact_mut(grid.cells())) {
                *result = find_peaks(row, *grid, *top_k);
            }
            Ok(())
        })?;
        Ok(results)
    }

    /// [`row_peaks`](Self::row_peaks), and the most similar query for each cell of the target.
    pub(super) fn row_peaks_and_column_best(
        &self,
        queries: &ArrayView2<'_, f32>,
        cancellation: &Cancellation,
    ) -> Result<(Vec<RowPeaks>, ColumnBest), Cancelled> {
        let Self { target, grid, top_k } = self;
        let mut results = vec![RowPeaks::default(); queries.nrows()]; // [Q]
        let rows = block_rows(queries.nrows(), target.ncols());
        let columns = results
            .par_chunks_mut(rows)
            .enumerate()
            .try_fold(
                || (ColumnBest::new(grid.cells()), Vec::new()),
                |(mut columns, mut buffer), (block, results)| {
                    cancellation.check()?;
                    let first = block * rows;
                    let queries = queries.slice(s![first..first + results.len(), ..]); // [rows, C]
                    let similarities = block_similarities(&queries, target, &mut buffer); // [rows, M]
                    let lines = similarities.chunks_exact_mut(grid.cells());
                    for (index, (result, row)) in results.iter_mut().zip(lines).enumerate() {
                        columns.update((first + index) as u32, row);
                        *result = find_peaks(row, *grid, *top_k);
                    }
                    Ok((columns, buffer))
                },
            )
            .map(|folded| folded.map(|(columns, _)| columns))
            .try_reduce(|| ColumnBest::new(grid.cells()), |one, other| Ok(one.merged(&other)))?;
        Ok((results, columns))
    }
}

/// Number of rows of a block: as many as fit in the cache, but few enough that every thread has work.
pub(super) fn block_rows(queries: usize, columns: usize) -> usize {
    let fitting = (BLOCK_VALUES / columns.max(1)).clamp(MIN_BLOCK_ROWS, MAX_BLOCK_ROWS);
    fitting.min(queries.div_ceil(rayon::current_num_threads())).max(1)
}

/// The similarities of a block of queries, `[Q, C]`, with the target, `[C, M]`: `[Q, M]`, row by row, in `buffer`.
pub(super) fn block_similarities<'a>(
    queries: &ArrayView2<'_, f32>,
    target: &ArrayView2<'_, f32>,
    buffer: &'a mut Vec<f32>,
) -> &'a mut [f32] {
    let shape = (queries.nrows(), target.ncols());
    buffer.resize(shape.0 * shape.1, 0.0);
    let mut product = ArrayViewMut2::from_shape(shape, buffer.as_mut_slice()).expect("the buffer has this size");
    multiply(queries, target, &mut product); // [Q, M]
    buffer
}

/// All similarities, `[Q, M]`, row by row. With few queries most of a product's time goes into packing the target for the
/// kernel, so each thread packs and multiplies its own columns.
fn similarities_by_columns(queries: &ArrayView2<'_, f32>, target: &ArrayView2<'_, f32>) -> Vec<f32> {
    let mut similarities = vec![0.0_f32; queries.nrows() * target.ncols()];
    let mut product = ArrayViewMut2::from_shape((queries.nrows(), target.ncols()), similarities.as_mut_slice())
        .expect("the buffer was made for this shape");
    let width = target.ncols().div_ceil(rayon::current_num_threads()).next_multiple_of(16);
    let parts: Vec<_> =
        product.axis_chunks_iter_mut(Axis(1), width).zip(target.axis_chunks_iter(Axis(1), width)).collect();
    parts.into_par_iter().for_each(|(mut part, target)| multiply(queries, &target, &mut part)); // [Q, width]
    similarities
}

/// The peaks of one row of similarities, by non-maximum suppression. Overwrites the row.
fn find_peaks(row: &mut [f32], grid: GridSize, top_k: usize) -> RowPeaks {
    let mut row = SegmentedRow::new(row);
    let mut result = RowPeaks::default();
    // Values suppressed around the peaks so far, because a later peak may have them in its own neighbourhood.
    let mut suppressed: Vec<(usize, f32)> = Vec::new();
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
            suppressed.iter().find(|(cell, _)| *cell == neighbour).map_or(value, |&(_, value)| value)
        });
        for neighbour in cells_around::<3, 9>(cell, grid).into_iter().flatten() {
            if row.values[neighbour] > f32::NEG_INFINITY {
                suppressed.push((neighbour, row.values[neighbour]));
                row.suppress(neighbour);
            }
        }
        result.peaks.push(Peak { cell, score, around });
    }
    result
}

/// A row of similarities with the maximum of every segment, so that only the first peak needs a pass over all values.
struct SegmentedRow<'a> {
    values: &'a mut [f32],
    maxima: Vec<f32>,
}

impl<'a> SegmentedRow<'a> {
    const SEGMENT: usize = 64;

    fn new(values: &'a mut [f32]) -> Self {
        let maxima = values.chunks(Self::SEGMENT).map(maximum).collect();
        Self { values, maxima }
    }

    /// The first cell with the largest value; `None` if all are suppressed.
    #[expect(clippy::float_cmp, reason = "the value was read from the same slice")]
    fn best(&self) -> Option<(usize, f32)> {
        let score = maximum(&self.maxima);
        let segment = self.maxima.iter().position(|&value| value == score).filter(|_| score > f32::NEG_INFINITY)?;
        let first = segment * Self::SEGMENT;
        let offset = self.values[first..].iter().position(|&value| value == score)?;
        Some((first + offset, score))
    }

    /// Sets a value to negative infinity.
    #[expect(clippy::float_cmp, reason = "the maximum was read from the same slice")]
    fn suppress(&mut self, cell: usize) {
        let segment = cell / Self::SEGMENT;
        let old = std::mem::replace(&mut self.values[cell], f32::NEG_INFINITY);
        if old == self.maxima[segment] {
            let end = self.values.len().min((segment + 1) * Self::SEGMENT);
            self.maxima[segment] = maximum(&self.values[segment * Self::SEGMENT..end]);
        }
    }
}

/// Indices of the `SIDE`×`SIDE` cells around `cell` (`COUNT` in all), row by row; `None` outside the grid.
fn cells_around<const SIDE: usize, const COUNT: usize>(cell: usize, grid: GridSize) -> [Option<usize>; COUNT] {
    let (row, column) = (cell / grid.width, cell % grid.width);
    std::array::from_fn(|index| {
        let row = (row + index / SIDE).checked_sub(SIDE / 2).filter(|&row| row < grid.height)?;
        let column = (column + index % SIDE).checked_sub(SIDE / 2).filter(|&column| column < grid.width)?;
        Some(row * grid.width + column)
    })
}

/// The largest value; NaN is ignored. It keeps sixteen maxima, because a loop with one cannot be vectorised.
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
    fn peaks_are_apart_and_know_their_neighbourhoods() {
        let grid = GridSize { width: 4, height: 2 };
        let row = [0.1, 0.9, 0.8, 0.3, 0.2, 0.4, 0.5, 0.7];
        let peaks = find_peaks(&mut row.clone(), grid, 3);
        assert_eq!(peaks.peaks.iter().map(|peak| peak.cell).collect::<Vec<_>>(), [1, 7]);
        assert_eq!(peaks.runner_up, Some(0.7));
        // The 5×5 cells around cell 1 are columns −1 to 3 and rows −2 to 2; the grid has rows 0 and 1.
        let none = f32::NEG_INFINITY;
        let (above, first, second) = ([none; 10], [none, 0.1, 0.9, 0.8, 0.3], [none, 0.2, 0.4, 0.5, 0.7]);
        assert_eq!(peaks.peaks[0].around.to_vec(), [&above[..], &first, &second, &[none; 5]].concat());
        // Values suppressed around the first peak are in the second's neighbourhood.
        let (above, first, second) = ([none; 5], [0.9, 0.8, 0.3, none, none], [0.4, 0.5, 0.7, none, none]);
        assert_eq!(peaks.peaks[1].around.to_vec(), [&above[..], &first, &second, &[none; 10]].concat());
    }

    #[test]
    fn a_single_cell_has_no_runner_up() {
        let peaks = find_peaks(&mut [0.5], GridSize { width: 1, height: 1 }, 2);
        assert_eq!((peaks.peaks.len(), peaks.runner_up), (1, None));
    }

    #[test]
    fn cancelled_searches_end() {
        let grid = GridSize { width: 30, height: 20 };
        let (a, b) = (noise(2000, 5, 1), noise(5, grid.cells(), 2));
        let cancellation = Cancellation::default();
        cancellation.cancel();
        let search = PeakSearch { target: b.view(), grid, top_k: 1 };
        assert_eq!(search.row_peaks(&a.view(), &cancellation), Err(Cancelled));
        assert_eq!(search.row_peaks_and_column_best(&a.view(), &cancellation), Err(Cancelled));
    }

    fn cells(rows: &[RowPeaks]) -> Vec<Vec<usize>> {
        rows.iter().map(|row| row.peaks.iter().map(|peak| peak.cell).collect()).collect()
    }

    #[test]
    fn a_search_in_many_blocks_equals_a_search_in_one() {
        let grid = GridSize { width: 9, height: 7 };
        let queries = noise(2 * MAX_BLOCK_ROWS + 3, 5, 3);
        let target = noise(5, grid.cells(), 4);
        let (patience, search) = (Cancellation::default(), PeakSearch { target: target.view(), grid, top_k: 2 });
        let in_blocks = search.row_peaks(&queries.view(), &patience).unwrap();
        let one_by_one: Vec<RowPeaks> = queries
            .axis_chunks_iter(Axis(0), MAX_BLOCK_ROWS)
            .flat_map(|part| search.row_peaks(&part, &patience).unwrap())
            .collect();
        assert_eq!(cells(&in_blocks), cells(&one_by_one));
    }

    #[test]
    fn results_do_not_depend_on_the_number_of_threads() {
        let grid = GridSize { width: 31, height: 23 };
        // Many queries are multiplied in blocks of rows, few by columns; few different numbers make equal similarities.
        let (few, many, ties) = (100, 3 * MAX_BLOCK_ROWS + 5, |number: f32| number.signum());
        let cases = [(few, 64, None), (many, 64, None), (few, 6, Some(ties)), (many, 6, Some(ties))];
        for (queries, channels, rounding) in cases {
            let (mut queries, mut target) = (noise(queries, channels, 5), noise(channels, grid.cells(), 6));
            if let Some(rounding) = rounding {
                queries.mapv_inplace(rounding);
                target.mapv_inplace(rounding);
            }
            let search = PeakSearch { target: target.view(), grid, top_k: 3 };
            let results = [1, 2, 3, 5, 8].map(|threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let patience = Cancellation::default();
                pool.install(|| {
                    let mutual = search.row_peaks_and_column_best(&queries.view(), &patience).unwrap();
                    (search.row_peaks(&queries.view(), &patience).unwrap(), mutual)
                })
            });
            for other in &results[1..] {
                assert!(results[0] == *other, "{} queries", queries.nrows());
            }
        }
    }

    proptest! {
        #[test]
        fn blocks_give_the_maxima_of_the_whole_matrix(
            queries in 1_usize..80, width in 1_usize..9, height in 1_usize..9, seed: u32,
        ) {
            let grid = GridSize { width, height };
            let (a, b) = (noise(queries, 5, seed), noise(5, grid.cells(), !seed));
            let (patience, search) = (Cancellation::default(), PeakSearch { target: b.view(), grid, top_k: 2 });
            let (rows, columns) = search.row_peaks_and_column_best(&a.view(), &patience).unwrap();
            prop_assert_eq!(cells(&rows), cells(&search.row_peaks(&a.view(), &patience).unwrap()));
            let full = a.dot(&b); // [Q, M]
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
