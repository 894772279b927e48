//! The first principal components of a map as a colour picture.

use rayon::prelude::*;

use super::sample_axis::SampleAxis;
use super::{AxisPosition, FeatureMap, PrincipalComponents, Window};
use crate::image::RgbImage;

/// Share of the cells at either end of a component that may saturate, so that a few outliers do not reduce the contrast
/// of the others.
const SATURATED_SHARE: f64 = 0.02;
/// Value of a component without variance.
const MIDDLE: f32 = 0.5;

/// The first three principal components of the whole `map` as red, green and blue, interpolated bilinearly at the sample
/// positions of `window`, or at its pixels if the window is at cells. Each component is stretched so that all but the
/// outermost 2 % at either end use the full range. With fewer than three channels the other colours are constant.
#[expect(clippy::missing_panics_doc, reason = "a window in pixels is not at cells")]
pub fn components_picture(map: &FeatureMap, window: Window) -> RgbImage {
    let grid = map.grid();
    let planes = color_planes(map);
    let (columns, rows) =
        SampleAxis::columns_and_rows(grid, &window.in_pixels()).expect("a window in pixels is not at cells");
    let columns: Vec<AxisPosition> = (0..columns.len()).map(|column| columns.position(column)).collect();
    let mut picture = RgbImage::new(columns.len() as u32, rows.len() as u32);
    let line_bytes = (3 * columns.len()).max(1);
    picture.par_chunks_exact_mut(line_bytes).enumerate().for_each(|(row, line)| {
        let row = rows.position(row);
        for (pixel, column) in line.chunks_exact_mut(3).zip(&columns) {
            for (value, plane) in pixel.iter_mut().zip(&planes) {
                let (above, below) = (&plane[row.before * grid.width..], &plane[row.after * grid.width..]);
                let (top, bottom) = (column.interpolate(above), column.interpolate(below));
                *value = ((top + (bottom - top) * row.fraction) * 255.0).round() as u8;
            }
        }
    });
    picture
}

/// The colours of the cells, from 0 to 1: three planes `[H, W]`.
fn color_planes(map: &FeatureMap) -> [Vec<f32>; 3] {
    let count = map.channels().min(3);
    let components = PrincipalComponents::fit(map, count).expect("1 to 3 components, and no more than channels");
    let projected = components.project(map).expect("the components were fitted to this map");
    let variance = components.variances()[0];
    let mut planes = projected.data().chunks_exact(map.grid().cells()).zip(components.variances());
    std::array::from_fn(|_| match planes.next() {
        // A smaller component is rounding noise, which stretching would show as structure.
        Some((plane, &own)) if own > 1e-6 * variance => stretched(plane),
        _ => vec![MIDDLE; map.grid().cells()],
    })
}

fn stretched(plane: &[f32]) -> Vec<f32> {
    let mut sorted = plane.to_vec();
    sorted.sort_by(f32::total_cmp);
    let margin = (sorted.len() as f64 * SATURATED_SHARE) as usize;
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
    fn different_regions_have_different_colours() {
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
