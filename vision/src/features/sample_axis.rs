//! Sample positions along one axis of a map.

use std::ops::Range;

use super::window::{Placement, Window};
use super::{AxisPosition, CellPoint, Geometry, GridSize, PixelPoint};

/// The sample positions along one axis of a map, in rising order.
#[derive(Clone, Debug)]
pub(super) struct SampleAxis {
    /// The fraction of each sample's [`AxisPosition`].
    fractions: Vec<f32>,
    runs: Vec<Run>,
}

/// Consecutive samples between the same two cells.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: usize,
    before: usize,
    after: usize,
}

/// The part of a run within a range of samples.
pub(super) struct SampleRun {
    /// Indices of the samples, relative to the start of the range.
    pub(super) samples: Range<usize>,
    /// The cell before them.
    pub(super) before: usize,
    /// The cell after them.
    pub(super) after: usize,
}

impl SampleAxis {
    /// The columns and the rows of a window; `None` if it is at the cells of `grid`.
    pub(super) fn columns_and_rows(grid: GridSize, window: &Window) -> Option<(Self, Self)> {
        let (raster, Placement { origin, scale }) = (window.raster()?, window.placement(grid).ok()?);
        let geometry = Geometry { image: window.image(), grid };
        let cell = |column: usize, row: usize| -> CellPoint {
            let (x, y) = (origin.x + column as f64 * scale.x, origin.y + row as f64 * scale.y);
            geometry.cell_from_pixel(PixelPoint { x, y })
        };
        let columns = Self::new((0..raster.width).map(|column| cell(column, 0).x), grid.width);
        let rows = Self::new((0..raster.height).map(|row| cell(0, row).y), grid.height);
        Some((columns, rows))
    }

    /// Samples at `positions`, fractional cell indices in rising order, on an axis of `cells` cells.
    fn new(positions: impl Iterator<Item = f64>, cells: usize) -> Self {
        let (mut fractions, mut runs) = (Vec::new(), Vec::<Run>::new());
        for (first, position) in positions.enumerate() {
            let AxisPosition { before, after, fraction } = AxisPosition::new(position, cells);
            fractions.push(fraction);
            if runs.last().is_none_or(|run| run.before != before) {
                runs.push(Run { first, before, after });
            }
        }
        Self { fractions, runs }
    }

    pub(super) fn len(&self) -> usize {
        self.fractions.len()
    }

    pub(super) fn position(&self, sample: usize) -> AxisPosition {
        let Run { before, after, .. } = self.runs[self.run_index(sample)];
        AxisPosition { before, after, fraction: self.fractions[sample] }
    }

    /// The cells around `count` samples from `first` on.
    pub(super) fn cells(&self, first: usize, count: usize) -> Range<usize> {
        self.position(first).before..self.position(first + count - 1).after + 1
    }

    /// Calls `visit` with each run among `count` samples from `first` on, and the fractions of its samples.
    pub(super) fn for_each_run(&self, first: usize, count: usize, mut visit: impl FnMut(&SampleRun, &[f32])) {
        let end = first + count;
        for index in self.run_index(first)..self.runs.len() {
            let Run { first: start, before, after } = self.runs[index];
            if start >= end {
                return;
            }
            let next = self.runs.get(index + 1).map_or(self.len(), |run| run.first);
            let (start, stop) = (start.max(first), next.min(end));
            visit(&SampleRun { samples: start - first..stop - first, before, after }, &self.fractions[start..stop]);
        }
    }

    fn run_index(&self, sample: usize) -> usize {
        self.runs.partition_point(|run| run.first <= sample) - 1
    }
}
