//! A map between its cells: bilinear interpolation at a raster of places, a piece at a time.
//!
//! Along a row everything changes linearly from one cell to the next, so the inner loops run over the places between
//! two cells with nothing looked up.

use std::ops::Range;

use rayon::prelude::*;

use super::blend_lengths::BlendLengths;
use super::tensor::{Tensor, for_each_row};
use super::window::{Placement, Window};
use super::{CellPoint, FeatureMap, Geometry, GridSize, Layout, PixelPoint, neighbours};

/// Lengths of so many places are kept (a float each); of more they are computed again for every channel.
pub(super) const MAX_KEPT_LENGTHS: usize = 8 << 20;

/// A map at the places of a window: `[C, h, w]` or `[h, w, C]`.
#[derive(Clone, Debug)]
pub struct InterpolatedMap {
    /// In the order of `layout`.
    cells: Vec<f32>,
    channels: usize,
    grid: GridSize,
    layout: Layout,
    columns: Axis,
    rows: Axis,
    scaling: Scaling,
}

/// What is done to the interpolated descriptors.
#[derive(Clone, Debug)]
enum Scaling {
    AsIs,
    Unit(BlendLengths),
    /// 1 / length of every place.
    UnitKept(Vec<f32>),
}

impl InterpolatedMap {
    /// `map` at the places of `window`, each descriptor scaled to length 1 if `unit`. Beyond the centres of the
    /// outermost cells the border's descriptors continue.
    ///
    /// Nothing if the places of the window are the map's cells.
    pub fn new(map: FeatureMap, window: &Window, layout: Layout, unit: bool) -> Option<Self> {
        let (columns, rows) = Axis::both(map.grid(), window)?;
        let places = columns.len() * rows.len();
        let scaling = match (unit, layout) {
            (false, _) => Scaling::AsIs,
            (true, Layout::Chw) if places <= MAX_KEPT_LENGTHS => {
                Scaling::UnitKept(inverse_plane(&BlendLengths::of(&map), &columns, &rows))
            }
            (true, _) => Scaling::Unit(BlendLengths::of(&map)),
        };
        let (channels, grid) = (map.channels(), map.grid());
        let cells = match layout {
            Layout::Chw => map.into_data(),
            Layout::Hwc => map.view(Layout::Hwc).as_standard_layout().into_owned().into_raw_vec_and_offset().0,
        };
        Some(Self { cells, channels, grid, layout, columns, rows, scaling })
    }

    /// Appends `count` places of one row of one channel.
    fn append_channel(&self, channel: usize, row: usize, first: usize, count: usize, values: &mut Vec<f32>) {
        let place = self.rows.place(row);
        let plane = &self.cells[channel * self.grid.cells()..];
        let (above, below) = (&plane[place.before * self.grid.width..], &plane[place.after * self.grid.width..]);
        let across = self.columns.cells(first, count);
        let blended: Vec<f32> = above[across.clone()]
            .iter()
            .zip(&below[across.clone()])
            .map(|(above, below)| above + (below - above) * place.fraction)
            .collect();
        let start = values.len();
        values.resize(start + count, 0.0);
        let output = &mut values[start..];
        self.columns.for_each_run(first, count, |run, fractions| {
            let left = blended[run.before - across.start];
            let step = blended[run.after - across.start] - left;
            for (value, fraction) in output[run.places.clone()].iter_mut().zip(fractions) {
                *value = left + step * fraction;
            }
        });
        self.with_inverse_lengths(row, first, count, |inverse| {
            for (value, inverse) in output.iter_mut().zip(inverse) {
                *value *= inverse;
            }
        });
    }

    /// Appends the whole descriptors at `count` places of one row.
    fn append_descriptors(&self, row: usize, first: usize, count: usize, values: &mut Vec<f32>) {
        let channels = self.channels;
        let place = self.rows.place(row);
        let across = self.columns.cells(first, count);
        let cells = |row: usize| {
            let start = row * self.grid.width;
            &self.cells[(start + across.start) * channels..(start + across.end) * channels]
        };
        let blended: Vec<f32> = cells(place.before)
            .iter()
            .zip(cells(place.after))
            .map(|(above, below)| above + (below - above) * place.fraction)
            .collect(); // [cells across, C]
        let cell = |column: usize| &blended[(column - across.start) * channels..][..channels];
        let start = values.len();
        values.resize(start + count * channels, 0.0);
        let output = &mut values[start..];
        let mut scales = vec![1.0; count];
        self.with_inverse_lengths(row, first, count, |inverse| scales.copy_from_slice(inverse));
        self.columns.for_each_run(first, count, |run, fractions| {
            let (left, right) = (cell(run.before), cell(run.after));
            let places = output[run.places.start * channels..run.places.end * channels].chunks_exact_mut(channels);
            for ((descriptor, fraction), scale) in places.zip(fractions).zip(&scales[run.places.clone()]) {
                let (left_weight, right_weight) = ((1.0 - fraction) * scale, fraction * scale);
                for ((value, left), right) in descriptor.iter_mut().zip(left).zip(right) {
                    *value = left * left_weight + right * right_weight;
                }
            }
        });
    }

    /// Calls `apply` with 1 / length of `count` places of a row, if descriptors are scaled.
    fn with_inverse_lengths(&self, row: usize, first: usize, count: usize, apply: impl FnOnce(&[f32])) {
        match &self.scaling {
            Scaling::AsIs => {}
            Scaling::Unit(lengths) => {
                let mut inverse = vec![0.0; count];
                lengths.inverse_row(&self.columns, self.rows.place(row), first, &mut inverse);
                apply(&inverse);
            }
            Scaling::UnitKept(plane) => apply(&plane[row * self.columns.len() + first..][..count]),
        }
    }
}

impl Tensor for InterpolatedMap {
    fn shape(&self) -> Vec<usize> {
        self.layout.shape(self.channels, self.rows.len(), self.columns.len()).to_vec()
    }

    fn unit(&self) -> usize {
        match self.layout {
            Layout::Chw => 1,
            Layout::Hwc => self.channels,
        }
    }

    fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
        let (height, width) = (self.rows.len(), self.columns.len());
        match self.layout {
            Layout::Chw => for_each_row(range, width, |row, first, count| {
                self.append_channel(row / height, row % height, first, count, values);
            }),
            Layout::Hwc => {
                let places = range.start / self.channels..range.end / self.channels;
                for_each_row(places, width, |row, first, count| self.append_descriptors(row, first, count, values));
            }
        }
    }
}

fn inverse_plane(lengths: &BlendLengths, columns: &Axis, rows: &Axis) -> Vec<f32> {
    let mut plane = vec![0.0; rows.len() * columns.len()];
    plane.par_chunks_exact_mut(columns.len()).enumerate().for_each(|(row, inverse)| {
        lengths.inverse_row(columns, rows.place(row), 0, inverse);
    });
    plane
}

/// Places along one axis of a map, in order.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// How far each place is on the way from the cell before it to the one after it.
    fractions: Vec<f32>,
    /// Runs of places between the same two cells: the first place, the cell before, the cell after.
    runs: Vec<(usize, usize, usize)>,
}

/// A place between two cells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) fraction: f32,
}

/// Places between the same two cells.
pub(super) struct Run {
    /// Counted from the first place that was asked for.
    pub(super) places: Range<usize>,
    pub(super) before: usize,
    pub(super) after: usize,
}

impl Axis {
    /// The columns and the rows of a window; nothing if its places are the cells of `grid`.
    pub(super) fn both(grid: GridSize, window: &Window) -> Option<(Self, Self)> {
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

    /// `positions` in cells, rising, on an axis of `cells`.
    fn new(positions: impl Iterator<Item = f64>, cells: usize) -> Self {
        let (mut fractions, mut runs) = (Vec::new(), Vec::<(usize, usize, usize)>::new());
        for (index, position) in positions.enumerate() {
            let (before, after, fraction) = neighbours(position, cells);
            fractions.push(fraction);
            if runs.last().is_none_or(|&(_, last, _)| last != before) {
                runs.push((index, before, after));
            }
        }
        Self { fractions, runs }
    }

    pub(super) fn len(&self) -> usize {
        self.fractions.len()
    }

    fn run_of(&self, index: usize) -> usize {
        self.runs.partition_point(|&(first, ..)| first <= index) - 1
    }

    pub(super) fn place(&self, index: usize) -> Place {
        let (_, before, after) = self.runs[self.run_of(index)];
        Place { before, after, fraction: self.fractions[index] }
    }

    /// The cells that `count` places from `first` on lie between.
    fn cells(&self, first: usize, count: usize) -> Range<usize> {
        self.place(first).before..self.place(first + count - 1).after + 1
    }

    /// Calls `visit` with the runs that make up `count` places from `first` on, and the fractions of their places.
    pub(super) fn for_each_run(&self, first: usize, count: usize, mut visit: impl FnMut(&Run, &[f32])) {
        let end = first + count;
        for index in self.run_of(first)..self.runs.len() {
            let (start, before, after) = self.runs[index];
            if start >= end {
                return;
            }
            let next = self.runs.get(index + 1).map_or(self.len(), |&(next, ..)| next);
            let (start, stop) = (start.max(first), next.min(end));
            visit(&Run { places: start - first..stop - first, before, after }, &self.fractions[start..stop]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tensor::all_values;
    use crate::features::{CropBox, ImagePoints, Resolution, descriptors_at, l2_normalize_rows};
    use crate::image::ImageSize;
    use proptest::prelude::*;

    const IMAGE: ImageSize = ImageSize { width: 37, height: 23 };

    /// Positive numbers: where neighbours point in opposite directions, the last digits decide the direction between.
    fn map(channels: usize) -> FeatureMap {
        let data = (0..channels * 12).map(|i| ((i * i * 7) as f32).sin() + 1.2).collect();
        FeatureMap::new(channels, 3, 4, data).unwrap().into_normalized().into_map()
    }

    /// The same by sampling every place on its own: `[h·w, C]`.
    fn sampled(map: &FeatureMap, window: &Window, unit: bool) -> ndarray::Array2<f32> {
        let (raster, at) = (window.raster().unwrap(), window.placement(map.grid()).unwrap());
        let points = (0..raster.cells()).map(|index| {
            let (column, row) = ((index % raster.width) as f64, (index / raster.width) as f64);
            PixelPoint { x: at.origin.x + column * at.scale.x, y: at.origin.y + row * at.scale.y }
        });
        let mut rows = descriptors_at(map, IMAGE, &ImagePoints::new(points.collect(), IMAGE).unwrap());
        if unit {
            l2_normalize_rows(&mut rows);
        }
        rows
    }

    #[test]
    fn between_opposite_directions_there_are_only_these_two() {
        let map = FeatureMap::new(1, 1, 2, vec![1.0, -0.5]).unwrap();
        let window = Window::new(IMAGE, None, Resolution::Size { width: 999, height: 1 }).unwrap();
        let values = all_values(&InterpolatedMap::new(map, &window, Layout::Chw, true).unwrap(), 100);
        assert!(values.iter().all(|value| *value == 0.0 || (value.abs() - 1.0).abs() < 1e-3), "{values:?}");
        assert_eq!((values[0], values[998]), (1.0, -1.0));
    }

    proptest! {
        #[test]
        fn pieces_are_what_sampling_every_place_gives(
            (x, y, width, height) in (0_u32..30, 0_u32..20, 1_u32..8, 1_u32..4),
            size in prop::option::of((1_u32..50, 1_u32..30)),
            (channels, step, unit) in (1_usize..6, 1_usize..40, any::<bool>()),
        ) {
            let map = map(channels);
            let resolution = size.map_or(Resolution::Pixel, |(width, height)| Resolution::Size { width, height });
            let window = Window::new(IMAGE, Some(CropBox { x, y, width, height }), resolution).unwrap();
            let expected = sampled(&map, &window, unit);
            let hwc = InterpolatedMap::new(map.clone(), &window, Layout::Hwc, unit).unwrap();
            for (value, expected) in all_values(&hwc, step).iter().zip(&expected) {
                prop_assert!((value - expected).abs() < 1e-4, "{} {}", value, expected);
            }
            let mut chw = InterpolatedMap::new(map, &window, Layout::Chw, unit).unwrap();
            let values = all_values(&chw, step);
            for (value, expected) in values.iter().zip(expected.t().iter()) {
                prop_assert!((value - expected).abs() < 1e-4, "{} {}", value, expected);
            }
            // Lengths that are not kept are the same.
            if let Scaling::Unit(lengths) = hwc.scaling {
                chw.scaling = Scaling::Unit(lengths);
                prop_assert_eq!(all_values(&chw, step), values);
            }
        }
    }
}
