//! Numbers that are computed when they are asked for.

use std::ops::Range;
use std::sync::Arc;

use ndarray::Array2;

/// A tensor that need not exist as a whole: its values are written piece by piece, in C order.
pub trait Tensor: Send + Sync {
    /// Sizes of the axes, none of them 0.
    fn shape(&self) -> Vec<usize>;

    /// How many values are computed together: [`append`](Self::append) takes whole multiples of it only.
    fn unit(&self) -> usize;

    /// Appends the values at `range`, which begins and ends at multiples of the unit.
    fn append(&self, range: Range<usize>, values: &mut Vec<f32>);

    /// All values, if they lie in memory as they are.
    fn whole(&self) -> Option<Arc<Vec<f32>>> {
        None
    }
}

/// Descriptors that are there already, `[P, C]`.
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

/// Calls `visit` with the pieces of `range` that lie in one row of `width` places each: row, first place, number of
/// places.
pub(super) fn for_each_row(range: Range<usize>, width: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let mut start = range.start;
    while start < range.end {
        let (row, first) = (start / width, start % width);
        let count = (width - first).min(range.end - start);
        visit(row, first, count);
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
