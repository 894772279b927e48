//! A map at a raster of positions, interpolated bilinearly, one range of values at a time.
//!
//! Along a row, values change linearly from one cell to the next, so the inner loops run over the positions between two
//! cells without index arithmetic.

use std::ops::Range;

use rayon::prelude::*;

use super::blend_lengths::BlendLengths;
use super::sample_axis::SampleAxis;
use super::tensor::{RowPart, Tensor, for_each_row};
use super::window::Window;
use super::{FeatureMap, GridSize, Layout};

/// Inverse lengths of up to this many positions are kept, one float each. Beyond it they are computed for each channel.
pub(super) const MAX_KEPT_LENGTHS: usize = 8 << 20;

/// A map at the sample positions of a window: `[C, h, w]` or `[h, w, C]`.
#[derive(Clone, Debug)]
pub struct InterpolatedMap {
    /// The map's values, in the order of `layout`.
    cells: Vec<f32>,
    channels: usize,
    grid: GridSize,
    layout: Layout,
    columns: SampleAxis,
    rows: SampleAxis,
    scaling: Scaling,
}

/// Scaling of the interpolated descriptors.
#[derive(Clone, Debug)]
enum Scaling {
    /// None.
    AsIs,
    /// To length 1, with lengths computed for each row.
    Unit(BlendLengths),
    /// To length 1, with the inverse length of every position, `[h, w]`.
    UnitKept(Vec<f32>),
}

impl InterpolatedMap {
    /// `map` at the sample positions of `window`, each descriptor scaled to length 1 if `unit`. Beyond the centres of
    /// the outermost cells the border's descriptors continue.
    ///
    /// `None` if the window is at the map's own cells.
    pub fn new(map: FeatureMap, window: &Window, layout: Layout, unit: bool) -> Option<Self> {
        let (columns, rows) = SampleAxis::columns_and_rows(map.grid(), window)?;
        let positions = columns.len() * rows.len();
        let scaling = match (unit, layout) {
            (false, _) => Scaling::AsIs,
            (true, Layout::Chw) if positions <= MAX_KEPT_LENGTHS => {
                Scaling::UnitKept(inverse_plane(&BlendLengths::new(&map), &columns, &rows))
            }
            (true, _) => Scaling::Unit(BlendLengths::new(&map)),
        };
        let (channels, grid) = (map.channels(), map.grid());
        let cells = match layout {
            Layout::Chw => map.into_data(),
            Layout::Hwc => map.view(Layout::Hwc).as_standard_layout().into_owned().into_raw_vec_and_offset().0,
        };
        Some(Self { cells, channels, grid, layout, columns, rows, scaling })
    }

    /// Appends one channel's values at a part of a row of the raster.
    fn append_channel(&self, channel: usize, part: RowPart, values: &mut Vec<f32>) {
        let RowPart { row, first, count } = part;
        let position = self.rows.position(row);
        let plane = &self.cells[channel * self.grid.cells()..]; // [H, W]
        let (above, below) = (&plane[position.before * self.grid.width..], &plane[position.after * self.grid.width..]);
        let across = self.columns.cells(first, count);
        let blended: Vec<f32> = above[across.clone()]
            .iter()
            .zip(&below[across.clone()])
            .map(|(above, below)| above + (below - above) * position.fraction)
            .collect(); // [cells across]
        let start = values.len();
        values.resize(start + count, 0.0);
        let output = &mut values[start..];
        self.columns.for_each_run(first, count, |run, fractions| {
            let left = blended[run.before - across.start];
            let step = blended[run.after - across.start] - left;
            for (value, fraction) in output[run.samples.clone()].iter_mut().zip(fractions) {
                *value = left + step * fraction;
            }
        });
        self.with_inverse_lengths(part, |inverse| {
            for (value, inverse) in output.iter_mut().zip(inverse) {
                *value *= inverse;
            }
        });
    }

    /// Appends the descriptors at a part of a row of the raster.
    fn append_descriptors(&self, part: RowPart, values: &mut Vec<f32>) {
        let RowPart { row, first, count } = part;
        let channels = self.channels;
        let position = self.rows.position(row);
        let across = self.columns.cells(first, count);
        let cells = |row: usize| {
            let start = row * self.grid.width;
            &self.cells[(start + across.start) * channels..(start + across.end) * channels]
        };
        let blended: Vec<f32> = cells(position.before)
            .iter()
            .zip(cells(position.after))
            .map(|(above, below)| above + (below - above) * position.fraction)
            .collect(); // [cells across, C]
        let cell = |column: usize| &blended[(column - across.start) * channels..][..channels];
        let start = values.len();
        values.resize(start + count * channels, 0.0);
        let output = &mut values[start..];
        let mut scales = vec![1.0; count];
        self.with_inverse_lengths(part, |inverse| scales.copy_from_slice(inverse));
        self.columns.for_each_run(first, count, |run, fractions| {
            let (left, right) = (cell(run.before), cell(run.after));
            let descriptors =
                output[run.samples.start * channels..run.samples.end * channels].chunks_exact_mut(channels);
            for ((descriptor, fraction), scale) in descriptors.zip(fractions).zip(&scales[run.samples.clone()]) {
                let (left_weight, right_weight) = ((1.0 - fraction) * scale, fraction * scale);
                for ((value, left), right) in descriptor.iter_mut().zip(left).zip(right) {
                    *value = left * left_weight + right * right_weight;
                }
            }
        });
    }

    /// Calls `apply` with the inverse lengths at a part of a row, if descriptors are scaled.
    fn with_inverse_lengths(&self, RowPart { row, first, count }: RowPart, apply: impl FnOnce(&[f32])) {
        match &self.scaling {
            Scaling::AsIs => {}
            Scaling::Unit(lengths) => {
                let mut inverse = vec![0.0; count];
                lengths.inverse_row(&self.columns, self.rows.position(row), first, &mut inverse);
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
            Layout::Chw => for_each_row(range, width, |part| {
                let (channel, row) = (part.row / height, part.row % height);
                self.append_channel(channel, RowPart { row, ..part }, values);
            }),
            Layout::Hwc => {
                let positions = range.start / self.channels..range.end / self.channels;
                for_each_row(positions, width, |part| self.append_descriptors(part, values));
            }
        }
    }
}

/// The inverse lengths at every position, `[h, w]`.
fn inverse_plane(lengths: &BlendLengths, columns: &SampleAxis, rows: &SampleAxis) -> Vec<f32> {
    let mut plane = vec![0.0; rows.len() * columns.len()];
    plane.par_chunks_exact_mut(columns.len()).enumerate().for_each(|(row, inverse)| {
        lengths.inverse_row(columns, rows.position(row), 0, inverse);
    });
    plane
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::tensor::all_values;
    use crate::features::{CropBox, ImagePoints, PixelPoint, Resolution, descriptors_at, l2_normalize_rows};
    use crate::image::ImageSize;
    use proptest::prelude::*;

    const IMAGE: ImageSize = ImageSize { width: 37, height: 23 };

    /// Positive values: between opposite descriptors, rounding errors decide the direction.
    fn map(channels: usize) -> FeatureMap {
        let data = (0..channels * 12).map(|i| ((i * i * 7) as f32).sin() + 1.2).collect();
        FeatureMap::new(channels, 3, 4, data).unwrap().into_normalized().into_map()
    }

    /// Descriptors sampled one by one at every position: `[h·w, C]`.
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
    fn between_opposite_descriptors_there_are_only_these_two() {
        let map = FeatureMap::new(1, 1, 2, vec![1.0, -0.5]).unwrap();
        let window = Window::new(IMAGE, None, Resolution::Size { width: 999, height: 1 }).unwrap();
        let values = all_values(&InterpolatedMap::new(map, &window, Layout::Chw, true).unwrap(), 100);
        assert!(values.iter().all(|value| *value == 0.0 || (value.abs() - 1.0).abs() < 1e-3), "{values:?}");
        assert_eq!((values[0], values[998]), (1.0, -1.0));
    }

    proptest! {
        #[test]
        fn ranges_equal_sampling_every_position(
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
            // Lengths computed row by row equal those that are kept.
            if let Scaling::Unit(lengths) = hwc.scaling {
                chw.scaling = Scaling::Unit(lengths);
                prop_assert_eq!(all_values(&chw, step), values);
            }
        }
    }
}
