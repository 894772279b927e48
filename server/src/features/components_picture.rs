//! A feature map made visible.

use rayon::prelude::*;

use super::resample::steps;
use super::{FeatureMap, PrincipalComponents};
use crate::image::{ImageSize, RgbImage};

/// The share of cells at either end of a component that may saturate: a few outliers must not wash out the rest.
const SATURATED: f64 = 0.02;
/// What a component without any variance looks like.
const MIDDLE: f32 = 0.5;

/// The first three principal components of `map` as red, green and blue, bilinearly at the size of the picture. Each
/// component is stretched so that all but the outermost 2 % at either end use the full range. With fewer than three
/// channels the remaining colours stay at their middle.
pub fn components_picture(map: &FeatureMap, image: ImageSize) -> RgbImage {
    let grid = map.grid();
    let planes = color_planes(map);
    let columns = steps(grid.width, image.width as usize);
    let rows = steps(grid.height, image.height as usize);
    let mut picture = RgbImage::new(image.width, image.height);
    let line_bytes = (3 * image.width as usize).max(1);
    picture.par_chunks_exact_mut(line_bytes).zip(&rows).for_each(|(line, &(y0, y1, fy))| {
        for (pixel, &(x0, x1, fx)) in line.chunks_exact_mut(3).zip(&columns) {
            for (value, plane) in pixel.iter_mut().zip(&planes) {
                let (above, below) = (&plane[y0 * grid.width..], &plane[y1 * grid.width..]);
                let top = above[x0] + (above[x1] - above[x0]) * fx;
                let bottom = below[x0] + (below[x1] - below[x0]) * fx;
                *value = ((top + (bottom - top) * fy) * 255.0).round() as u8;
            }
        }
    });
    picture
}

/// Three planes of the map's size with values from 0 to 1.
fn color_planes(map: &FeatureMap) -> [Vec<f32>; 3] {
    let count = map.channels().min(3);
    let components = PrincipalComponents::of(map, count).expect("1 to 3 components, and no more than channels");
    let projected = components.project(map).expect("the map that the components are of");
    let variance = components.variances()[0];
    let mut planes = projected.data().chunks_exact(map.grid().cells()).zip(components.variances());
    std::array::from_fn(|_| match planes.next() {
        // Below this a component is rounding noise, which stretching would show as structure.
        Some((plane, &own)) if own > 1e-6 * variance => stretched(plane),
        _ => vec![MIDDLE; map.grid().cells()],
    })
}

fn stretched(plane: &[f32]) -> Vec<f32> {
    let mut sorted = plane.to_vec();
    sorted.sort_by(f32::total_cmp);
    let margin = (sorted.len() as f64 * SATURATED) as usize;
    let (low, high) = (sorted[margin], sorted[sorted.len() - 1 - margin]);
    let range = high - low;
    if !range.is_normal() {
        return vec![MIDDLE; plane.len()];
    }
    plane.iter().map(|value| ((value - low) / range).clamp(0.0, 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_get_colours_of_their_own() {
        // Left half one direction, right half another.
        let data = (0..4 * 64).map(|i| if (i % 8 < 4) == (i / 64 % 2 == 0) { 1.0 } else { 0.0 }).collect();
        let map = FeatureMap::new(4, 8, 8, data).unwrap();
        let picture = components_picture(&map, ImageSize { width: 80, height: 40 });
        assert_eq!(picture.dimensions(), (80, 40));
        assert_eq!(picture.get_pixel(5, 5), picture.get_pixel(5, 35));
        assert_eq!(picture.get_pixel(5, 5)[0].abs_diff(picture.get_pixel(75, 5)[0]), 255);
    }

    #[test]
    fn a_map_without_variance_is_grey() {
        let map = FeatureMap::new(1, 2, 2, vec![3.0; 4]).unwrap();
        let picture = components_picture(&map, ImageSize { width: 5, height: 3 });
        assert!(picture.pixels().all(|pixel| pixel.0 == [128; 3]));
    }
}
