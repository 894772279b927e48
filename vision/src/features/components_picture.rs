//! A feature map made visible.

use rayon::prelude::*;

use super::interpolated::{Axis, Place};
use super::{FeatureMap, PrincipalComponents, Window};
use crate::image::RgbImage;

/// The share of cells at either end of a component that may saturate: a few outliers must not wash out the rest.
const SATURATED: f64 = 0.02;
/// What a component without any variance looks like.
const MIDDLE: f32 = 0.5;

/// The first three principal components of the whole `map` as red, green and blue, bilinearly at the places of
/// `window`, or at its pixels if it is at cells. Each component is stretched so that all but the outermost 2 % at either
/// end use the full range. With fewer than three channels the remaining colours stay at their middle.
#[expect(clippy::missing_panics_doc, reason = "pixels are not cells")]
pub fn components_picture(map: &FeatureMap, window: Window) -> RgbImage {
    let grid = map.grid();
    let planes = color_planes(map);
    let (columns, rows) = Axis::both(grid, &window.in_pixels()).expect("the places are pixels, not cells");
    let columns: Vec<Place> = (0..columns.len()).map(|column| columns.place(column)).collect();
    let mut picture = RgbImage::new(columns.len() as u32, rows.len() as u32);
    let line_bytes = (3 * columns.len()).max(1);
    picture.par_chunks_exact_mut(line_bytes).enumerate().for_each(|(row, line)| {
        let row = rows.place(row);
        for (pixel, column) in line.chunks_exact_mut(3).zip(&columns) {
            for (value, plane) in pixel.iter_mut().zip(&planes) {
                let (above, below) = (&plane[row.before * grid.width..], &plane[row.after * grid.width..]);
                let top = above[column.before] + (above[column.after] - above[column.before]) * column.fraction;
                let bottom = below[column.before] + (below[column.after] - below[column.before]) * column.fraction;
                *value = ((top + (bottom - top) * row.fraction) * 255.0).round() as u8;
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
    use crate::features::{CropBox, Resolution};
    use crate::image::ImageSize;

    fn window(width: u32, height: u32, crop: Option<CropBox>) -> Window {
        Window::new(ImageSize { width, height }, crop, Resolution::Grid).unwrap()
    }

    #[test]
    fn regions_get_colours_of_their_own() {
        // Left half one direction, right half another.
        let data = (0..4 * 64).map(|i| if (i % 8 < 4) == (i / 64 % 2 == 0) { 1.0 } else { 0.0 }).collect();
        let map = FeatureMap::new(4, 8, 8, data).unwrap();
        let picture = components_picture(&map, window(80, 40, None));
        assert_eq!(picture.dimensions(), (80, 40));
        assert_eq!(picture.get_pixel(5, 5), picture.get_pixel(5, 35));
        assert_eq!(picture.get_pixel(5, 5)[0].abs_diff(picture.get_pixel(75, 5)[0]), 255);
        let crop = CropBox { x: 70, y: 10, width: 8, height: 6 };
        let part = components_picture(&map, window(80, 40, Some(crop)));
        assert_eq!(part.dimensions(), (8, 6));
        assert_eq!(part.get_pixel(3, 2), picture.get_pixel(73, 12));
    }

    #[test]
    fn a_map_without_variance_is_grey() {
        let map = FeatureMap::new(1, 2, 2, vec![3.0; 4]).unwrap();
        let picture = components_picture(&map, window(5, 3, None));
        assert!(picture.pixels().all(|pixel| pixel.0 == [128; 3]));
    }
}
