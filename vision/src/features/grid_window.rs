//! A rectangle of a map's own cells as a tensor.

use std::ops::Range;
use std::sync::Arc;

use super::tensor::{RowPart, Tensor, for_each_row};
use super::window::CellWindow;
use super::{FeatureMap, Layout};

/// A rectangle of cells of a map, `[C, h, w]` or `[h, w, C]`. The map is shared, not copied.
#[derive(Clone, Debug)]
pub struct GridWindow {
    map: FeatureMap,
    cells: CellWindow,
    layout: Layout,
}

impl GridWindow {
    /// `cells` of `map` in the order of `layout`.
    ///
    /// # Panics
    /// If the rectangle reaches beyond the map.
    pub fn new(map: FeatureMap, cells: CellWindow, layout: Layout) -> Self {
        assert!(cells.columns.end <= map.grid().width && cells.rows.end <= map.grid().height, "{cells:?}");
        Self { map, cells, layout }
    }

    /// One channel's values at a part of a row of the rectangle.
    fn run(&self, channel: usize, RowPart { row, first, count }: RowPart) -> &[f32] {
        let grid = self.map.grid();
        let row = channel * grid.cells() + (self.cells.rows.start + row) * grid.width;
        let start = row + self.cells.columns.start + first;
        &self.map.data()[start..start + count]
    }
}

impl Tensor for GridWindow {
    fn shape(&self) -> Vec<usize> {
        let (height, width) = (self.cells.rows.len(), self.cells.columns.len());
        self.layout.shape(self.map.channels(), height, width).to_vec()
    }

    fn unit(&self) -> usize {
        match self.layout {
            Layout::Chw => 1,
            Layout::Hwc => self.map.channels(),
        }
    }

    fn whole(&self) -> Option<Arc<Vec<f32>>> {
        let grid = self.map.grid();
        let is_whole = self.cells.columns.len() == grid.width && self.cells.rows.len() == grid.height;
        (is_whole && self.layout == Layout::Chw).then(|| self.map.values())
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let (height, width) = (self.cells.rows.len(), self.cells.columns.len());
        match self.layout {
            Layout::Chw => for_each_row(range, width, |part| {
                let (channel, row) = (part.row / height, part.row % height);
                values.extend_from_slice(self.run(channel, RowPart { row, ..part }));
            }),
            Layout::Hwc => {
                let channels = self.map.channels();
                for_each_row(range.start / channels..range.end / channels, width, |part| {
                    let start = values.len();
                    values.resize(start + part.count * channels, 0.0);
                    let output = &mut values[start..]; // [count, C]
                    for channel in 0..channels {
                        let run = self.run(channel, part);
                        for (element, value) in output.iter_mut().skip(channel).step_by(channels).zip(run) {
                            *element = *value;
                        }
                    }
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tensor::all_values;

    /// A map `[2, 3, 4]` whose values have channel, row and column as digits.
    fn window(layout: Layout, columns: Range<usize>, rows: Range<usize>) -> GridWindow {
        let data = (0..24).map(|i| (100 * (i / 12) + 10 * (i / 4 % 3) + i % 4) as f32).collect();
        GridWindow::new(FeatureMap::new(2, 3, 4, data).unwrap(), CellWindow { columns, rows }, layout)
    }

    #[test]
    fn a_part_has_the_right_values_in_either_layout() {
        for step in [1, 2, 3, 5, 100] {
            let chw = window(Layout::Chw, 1..3, 1..3);
            assert_eq!(chw.shape(), [2, 2, 2]);
            assert_eq!(all_values(&chw, step), [11.0, 12.0, 21.0, 22.0, 111.0, 112.0, 121.0, 122.0]);
            let hwc = window(Layout::Hwc, 1..3, 1..3);
            assert_eq!(all_values(&hwc, step), [11.0, 111.0, 12.0, 112.0, 21.0, 121.0, 22.0, 122.0]);
        }
    }

    #[test]
    fn the_whole_map_is_shared() {
        let whole = window(Layout::Chw, 0..4, 0..3);
        assert_eq!(all_values(&whole, 7), whole.map.data());
        assert_eq!(whole.whole().as_deref().map(Vec::as_slice), Some(whole.map.data()), "and is not copied");
        for part in [window(Layout::Chw, 0..3, 0..3), window(Layout::Chw, 0..4, 1..3), window(Layout::Hwc, 0..4, 0..3)]
        {
            assert_eq!(part.whole(), None);
        }
        let hwc = window(Layout::Hwc, 0..4, 0..3);
        assert_eq!(all_values(&hwc, 7), hwc.map.view(Layout::Hwc).iter().copied().collect::<Vec<_>>());
    }
}
