//! A map at another resolution.

use rayon::prelude::*;

use super::{FeatureMap, GridSize, neighbours};

/// `map` at the resolution of `grid` over the same picture, bilinearly. Meant for upsampling: nothing is averaged
/// when the grid is coarser.
///
/// # Panics
/// If `grid` has no cells.
pub fn resampled(map: &FeatureMap, grid: GridSize) -> FeatureMap {
    if grid == map.grid() {
        return map.clone();
    }
    let from = map.grid();
    let columns = steps(from.width, grid.width);
    let rows = steps(from.height, grid.height);
    let mut data = vec![0.0_f32; map.channels() * grid.cells()]; // [C, H, W]
    let channels = map.data().par_chunks_exact(from.cells());
    data.par_chunks_exact_mut(grid.cells()).zip(channels).for_each(|(output, input)| {
        for (line, &(y0, y1, fy)) in output.chunks_exact_mut(grid.width).zip(&rows) {
            let (above, below) = (&input[y0 * from.width..], &input[y1 * from.width..]);
            for (value, &(x0, x1, fx)) in line.iter_mut().zip(&columns) {
                let top = above[x0] + (above[x1] - above[x0]) * fx;
                let bottom = below[x0] + (below[x1] - below[x0]) * fx;
                *value = top + (bottom - top) * fy;
            }
        }
    });
    FeatureMap::new(map.channels(), grid.height, grid.width, data).expect("the buffer was made for this shape")
}

/// For every position of the finer axis, its neighbours on the coarser axis; both span the same picture.
pub(super) fn steps(from: usize, to: usize) -> Vec<(usize, usize, f32)> {
    let scale = from as f64 / to as f64;
    (0..to).map(|position| neighbours((position as f64 + 0.5) * scale - 0.5, from)).collect()
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
