//! Tensors whose values are computed on demand.

use std::ops::Range;
use std::sync::Arc;

use ndarray::{Array1, Array2};

/// A tensor that need not be in memory as a whole: any range of its values can be computed, in C order.
pub trait Tensor: Send + Sync {
    /// Sizes of the axes, all at least 1.
    fn shape(&self) -> Vec<usize>;

    /// Number of values that are computed together: ranges of [`append`](Self::append) start and end at its multiples.
    fn unit(&self) -> usize;

    /// Appends the values at `range`, which starts and ends at multiples of the unit.
    fn append(&self, range: Range<usize>, values: &mut Vec<f32>);

    /// All values in C order, if they are in memory.
    fn whole(&self) -> Option<Arc<Vec<f32>>> {
        None
    }
}

/// A vector in memory, `[C]`.
impl Tensor for Array1<f32> {
    fn shape(&self) -> Vec<usize> {
        self.shape().to_vec()
    }

    fn unit(&self) -> usize {
        1
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        values.extend(self.iter().skip(range.start).take(range.len()));
    }
}

/// Descriptors in memory, `[P, C]`.
impl Tensor for Array2<f32> {
    fn shape(&self) -> Vec<usize> {
        self.shape().to_vec()
    }

    fn unit(&self) -> usize {
        self.ncols()
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let first = range.start / self.ncols();
        let rows = self.rows().into_iter().skip(first).take(range.len() / self.ncols());
        values.extend(rows.flatten());
    }
}

/// A part of a row: `count` values from column `first` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowPart {
    pub(super) row: usize,
    pub(super) first: usize,
    pub(super) count: usize,
}

/// Splits `range` at the ends of rows of `width` values, and calls `visit` with each part.
pub(super) fn for_each_row(range: Range<usize>, width: usize, mut visit: impl FnMut(RowPart)) {
    let mut start = range.start;
    while start < range.end {
        let (row, first) = (start / width, start % width);
        let count = (width - first).min(range.end - start);
        visit(RowPart { row, first, count });
        start += count;
    }
}

#[cfg(test)]
pub(super) fn all_values(tensor: &dyn Tensor, step: usize) -> Vec<f32> {
    let count = tensor.shape().iter().product();
    let mut values = Vec::new();
    for start in (0..count).step_by(step * tensor.unit()) {
        tensor.append(start..count.min(start + step * tensor.unit()), &mut values);
    }
    values
}
