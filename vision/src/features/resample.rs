//! Resampling of a map to another grid.

use rayon::prelude::*;

use super::{AxisPosition, FeatureMap, GridSize};

/// `map` resampled bilinearly to `grid` cells over the same image: `[C, H, W]`. For upsampling: a coarser grid takes
/// single values, no means.
///
/// # Panics
/// If `grid` has no cells.
pub fn resampled(map: &FeatureMap, grid: GridSize) -> FeatureMap {
    if grid == map.grid() {
        return map.clone();
    }
    let mut data = vec![0.0_f32; map.channels() * grid.cells()]; // [C, H, W]
    resample_into(map, grid, &mut data);
    FeatureMap::new(map.channels(), grid.height, grid.width, data).expect("the buffer was made for this shape")
}

/// [`resampled`], into `output`, `[C, H, W]`.
pub(super) fn resample_into(map: &FeatureMap, grid: GridSize, output: &mut [f32]) {
    let from = map.grid();
    if grid == from {
        output.copy_from_slice(map.data());
        return;
    }
    let columns = positions(from.width, grid.width);
    let rows = positions(from.height, grid.height);
    let channels = map.data().par_chunks_exact(from.cells());
    output.par_chunks_exact_mut(grid.cells()).zip(channels).for_each(|(output, input)| {
        for (line, row) in output.chunks_exact_mut(grid.width).zip(&rows) {
            let (above, below) = (&input[row.before * from.width..], &input[row.after * from.width..]);
            for (value, column) in line.iter_mut().zip(&columns) {
                let (top, bottom) = (column.interpolate(above), column.interpolate(below));
                *value = top + (bottom - top) * row.fraction;
            }
        }
    });
}

/// The centres of `to` cells as positions on an axis of `from` cells; both axes cover the same image.
fn positions(from: usize, to: usize) -> Vec<AxisPosition> {
    let scale = from as f64 / to as f64;
    (0..to).map(|cell| AxisPosition::new((cell as f64 + 0.5) * scale - 0.5, from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_interpolates_between_centres() {
        let map = FeatureMap::new(1, 1, 2, vec![0.0, 4.0]).unwrap();
        let doubled = resampled(&map, GridSize { width: 4, height: 2 });
        assert_eq!(doubled.data(), [0.0, 1.0, 3.0, 4.0, 0.0, 1.0, 3.0, 4.0]);
    }

    #[test]
    fn the_same_grid_is_the_same_map() {
        let map = FeatureMap::new(2, 1, 2, vec![0.0, 4.0, 1.0, 2.0]).unwrap();
        assert_eq!(resampled(&map, map.grid()), map);
    }
}
