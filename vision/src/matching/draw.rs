//! Drawings of correspondences: both images side by side, with matches or with one point's similarities on top.

use ::image::{Rgb, imageops};
use ndarray::ArrayView2;
use rayon::prelude::*;

use super::PointMatch;
use super::raster::{CanvasPoint, Pen, draw_disc, draw_line, draw_ring};
use crate::features::{FeatureMap, GridSize, PixelPoint, resampled};
use crate::image::{ImageSize, ResizeError, RgbImage, resize};

/// Limits of the longer side of each drawn image.
const LONGEST_SIDE_PX: u32 = 1024;
const SHORTEST_SIDE_PX: u32 = 256;
const GAP_PX: u32 = 8;
const BACKGROUND: Rgb<u8> = Rgb([24, 24, 24]);
const INLIER: Rgb<u8> = Rgb([60, 220, 90]);
const OUTLIER: Rgb<u8> = Rgb([240, 70, 60]);
/// More lines than this hide each other.
const MAX_LINES: usize = 400;

/// Draws both images side by side with a line for every match: each in its own colour, or, if the matches were verified,
/// inliers green and outliers red. Each image is scaled so that its longer side has 256 to 1024 pixels. Of more than 400
/// matches, 400 at even distances in their order are drawn.
///
/// # Errors
/// [`ResizeError`] if an image has no pixels.
pub fn draw_matches(source: &RgbImage, target: &RgbImage, matches: &[PointMatch]) -> Result<RgbImage, ResizeError> {
    let mut pair = PairCanvas::new(source, target)?;
    let count = matches.len().min(MAX_LINES);
    // More lines are more transparent, so that the images stay visible.
    let opacity = (1.0 - count as f32 / 600.0).max(0.35);
    let mut drawn: Vec<_> =
        (0..count).filter_map(|index| Some((index, matches.get(index * matches.len() / count)?))).collect();
    // Inliers are drawn over outliers.
    drawn.sort_by_key(|(_, found)| found.inlier == Some(true));
    for (index, found) in drawn {
        let pen = match found.inlier {
            None => Pen { color: distinct_color(index), opacity, width: 1.5 },
            Some(true) => Pen { color: INLIER, opacity, width: 1.5 },
            Some(false) => Pen { color: OUTLIER, opacity: 0.6 * opacity, width: 1.0 },
        };
        let (from, to) = (pair.in_source(found.source), pair.in_target(found.target));
        draw_line(&mut pair.canvas, from, to, pen);
        let radius = if found.inlier == Some(false) { 2.0 } else { 3.0 };
        for end in [from, to] {
            draw_disc(&mut pair.canvas, end, radius, Pen { opacity: 1.0, ..pen });
        }
    }
    Ok(pair.canvas)
}

/// Draws the source with `point` marked beside the target under a heat map of `similarity`, `[h, w]`, one of
/// [`super::SimilarityMaps`]. Similarities below their median are dark; the most similar cell is the brightest and is
/// marked too.
///
/// # Errors
/// [`ResizeError`] if an image has no pixels.
#[expect(clippy::needless_pass_by_value, reason = "a view is made for the call and as small as a reference")]
pub fn draw_similarity(
    source: &RgbImage,
    point: PixelPoint,
    target: &RgbImage,
    similarity: ArrayView2<'_, f32>,
) -> Result<RgbImage, ResizeError> {
    let mut pair = PairCanvas::new(source, target)?;
    let (height, width) = similarity.dim();
    let values: Vec<f32> = similarity.iter().copied().collect();
    let best = (0..values.len()).fold(0, |best, cell| if values[cell] > values[best] { cell } else { best });
    if let Ok(map) = FeatureMap::new(1, height, width, values) {
        pair.overlay(&map);
        let geometry = map.geometry(ImageSize::from(target.dimensions()));
        let best = pair.in_target(geometry.cell_center(best));
        mark(&mut pair.canvas, best);
    }
    let point = pair.in_source(point);
    mark(&mut pair.canvas, point);
    Ok(pair.canvas)
}

/// Two images side by side on one canvas.
struct PairCanvas {
    canvas: RgbImage,
    source: Panel,
    target: Panel,
}

/// The place of an image on the canvas.
#[derive(Clone, Copy)]
struct Panel {
    left: u32,
    size: ImageSize,
    /// Canvas pixels for each pixel of the image, across and down.
    scale: (f32, f32),
}

impl PairCanvas {
    fn new(source: &RgbImage, target: &RgbImage) -> Result<Self, ResizeError> {
        let (small_source, small_target) = (resize(source, drawn_size(source))?, resize(target, drawn_size(target))?);
        let left = small_source.width() + GAP_PX;
        let height = small_source.height().max(small_target.height());
        let mut canvas = RgbImage::from_pixel(left + small_target.width(), height, BACKGROUND);
        imageops::replace(&mut canvas, &small_source, 0, 0);
        imageops::replace(&mut canvas, &small_target, i64::from(left), 0);
        let panel = |left: u32, drawn: &RgbImage, whole: &RgbImage| Panel {
            left,
            size: ImageSize::from(drawn.dimensions()),
            scale: (drawn.width() as f32 / whole.width() as f32, drawn.height() as f32 / whole.height() as f32),
        };
        let (source, target) = (panel(0, &small_source, source), panel(left, &small_target, target));
        Ok(Self { canvas, source, target })
    }

    fn in_source(&self, point: PixelPoint) -> CanvasPoint {
        self.source.canvas_point(point)
    }

    fn in_target(&self, point: PixelPoint) -> CanvasPoint {
        self.target.canvas_point(point)
    }

    /// Turns the target grey and blends a heat map of `map`, `[1, h, w]`, into it.
    fn overlay(&mut self, map: &FeatureMap) {
        let Panel { left, size, .. } = self.target;
        let grid = GridSize { width: size.width as usize, height: size.height as usize };
        // The scale starts at the median, because cosines of a network's features are close to 1 and differ most at the top.
        let mut sorted = map.data().to_vec();
        sorted.sort_by(f32::total_cmp);
        let (low, high) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        let range = (high - low).max(f32::MIN_POSITIVE);
        let values = resampled(map, grid);
        let rows = values.data().par_chunks_exact(grid.width.max(1));
        let canvas_row_bytes = 3 * self.canvas.width() as usize;
        self.canvas.par_chunks_exact_mut(canvas_row_bytes).zip(rows).for_each(|(line, row)| {
            let pixels = line[3 * left as usize..].chunks_exact_mut(3);
            for (pixel, &value) in pixels.zip(row) {
                let grey = 0.35 * f32::from(luma(Rgb([pixel[0], pixel[1], pixel[2]])));
                let heat = heat_color((value - low) / range);
                for (value, heat) in pixel.iter_mut().zip(heat) {
                    *value = (grey + 0.65 * heat).round() as u8;
                }
            }
        });
    }
}

impl Panel {
    fn canvas_point(&self, point: PixelPoint) -> CanvasPoint {
        CanvasPoint {
            x: (point.x as f32 + 0.5) * self.scale.0 - 0.5 + self.left as f32,
            y: (point.y as f32 + 0.5) * self.scale.1 - 0.5,
        }
    }
}

fn drawn_size(picture: &RgbImage) -> ImageSize {
    let size = ImageSize::from(picture.dimensions());
    let longer = f64::from(size.longer_side().max(1));
    let scale = f64::from(size.longer_side().clamp(SHORTEST_SIDE_PX, LONGEST_SIDE_PX)) / longer;
    let side = |length: u32| ((f64::from(length) * scale).round() as u32).max(u32::from(length > 0));
    ImageSize { width: side(size.width), height: side(size.height) }
}

/// Marks a point with a white ring on a black one, which is visible on any background.
fn mark(canvas: &mut RgbImage, point: CanvasPoint) {
    draw_ring(canvas, point, 7.0, Pen { color: Rgb([0, 0, 0]), opacity: 1.0, width: 4.0 });
    draw_ring(canvas, point, 7.0, Pen { color: Rgb([255, 255, 255]), opacity: 1.0, width: 2.0 });
    draw_disc(canvas, point, 1.5, Pen { color: Rgb([255, 255, 255]), opacity: 1.0, width: 1.0 });
}

/// Rec. 601 luma.
fn luma(Rgb([red, green, blue]): Rgb<u8>) -> u8 {
    ((u32::from(red) * 299 + u32::from(green) * 587 + u32::from(blue) * 114) / 1000) as u8
}

/// A bright colour, far from those of the indices next to it: hues are in steps of the golden ratio.
fn distinct_color(index: usize) -> Rgb<u8> {
    let hue = (index as f32 * 0.618_034).fract() * 6.0;
    let channel = |offset: f32| {
        let distance = ((hue + offset).rem_euclid(6.0) - 3.0).abs();
        ((distance - 1.0).clamp(0.0, 1.0) * 215.0 + 40.0).round() as u8
    };
    Rgb([channel(0.0), channel(4.0), channel(2.0)])
}

/// A colour from dark blue over red and orange to light yellow for a value from 0 to 1, with rising lightness.
fn heat_color(value: f32) -> [f32; 3] {
    const STOPS: [[f32; 3]; 5] =
        [[8.0, 8.0, 40.0], [80.0, 18.0, 110.0], [190.0, 55.0, 80.0], [250.0, 145.0, 30.0], [252.0, 252.0, 165.0]];
    let position = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let first = (position as usize).min(STOPS.len() - 2);
    let share = position - first as f32;
    std::array::from_fn(|channel| STOPS[first][channel] + (STOPS[first + 1][channel] - STOPS[first][channel]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array2;

    fn found(source: [f64; 2], target: [f64; 2]) -> PointMatch {
        PointMatch {
            query: 0,
            source: source.into(),
            target: target.into(),
            score: 1.0,
            mutual: true,
            ratio: 0.5,
            inlier: None,
            candidates: Vec::new(),
        }
    }

    #[test]
    fn images_are_side_by_side_at_a_bounded_size() {
        let drawn = draw_matches(&RgbImage::new(4000, 2000), &RgbImage::new(10, 20), &[]).unwrap();
        assert_eq!(drawn.dimensions(), (1024 + 8 + 128, 512));
        assert_eq!(drawn.get_pixel(1028, 0), &BACKGROUND);
    }

    #[test]
    fn a_line_joins_both_ends() {
        let black = RgbImage::new(300, 200);
        let drawn = draw_matches(&black, &black, &[found([50.0, 100.0], [150.0, 100.0])]).unwrap();
        let color = distinct_color(0);
        for x in [50, 200, 400, 458] {
            let pixel = drawn.get_pixel(x, 100);
            assert!(pixel.0.iter().zip(color.0).all(|(&value, color)| value.abs_diff(color) < 30), "{x} {pixel:?}");
        }
        assert_eq!(drawn.get_pixel(200, 120), &Rgb([0, 0, 0]));
    }

    #[test]
    fn inliers_and_outliers_have_different_colours() {
        let black = RgbImage::new(300, 200);
        let verified = |y: f64, inlier| PointMatch { inlier: Some(inlier), ..found([50.0, y], [150.0, y]) };
        let drawn = draw_matches(&black, &black, &[verified(50.0, true), verified(150.0, false)]).unwrap();
        let (good, bad) = (drawn.get_pixel(200, 50), drawn.get_pixel(200, 150));
        assert!(good[1] > 2 * good[0] && bad[0] > 2 * bad[1], "{good:?} {bad:?}");
    }

    #[test]
    fn the_most_similar_cell_is_the_brightest() {
        let grey = RgbImage::from_pixel(320, 320, Rgb([128; 3]));
        let similarity = Array2::from_shape_fn((10, 10), |(y, x)| if (y, x) == (2, 7) { 1.0 } else { 0.1 });
        let drawn = draw_similarity(&grey, PixelPoint { x: 10.0, y: 10.0 }, &grey, similarity.view()).unwrap();
        let at = |x: u32, y: u32| u32::from(luma(*drawn.get_pixel(328 + x, y)));
        assert!(at(7 * 32 + 15, 2 * 32 + 15) > at(3 * 32, 8 * 32) + 100);
        assert_eq!(drawn.get_pixel(10, 10), &Rgb([255; 3]));
    }

    #[test]
    fn colours_of_neighbours_differ() {
        for index in 0..50 {
            let (one, next) = (distinct_color(index), distinct_color(index + 1));
            let difference: u32 = one.0.iter().zip(next.0).map(|(&a, b)| u32::from(a.abs_diff(b))).sum();
            assert!(difference > 150, "{one:?} {next:?}");
        }
    }

    #[test]
    fn of_many_matches_400_at_even_distances_are_drawn() {
        let black = RgbImage::new(300, 300);
        let draw = |matches: &[PointMatch]| draw_matches(&black, &black, matches).unwrap();
        let at = |i: u32| found([f64::from(i * 7 % 300), f64::from(i * 11 % 300)], [f64::from(i * 13 % 300), 150.0]);
        let many: Vec<_> = (0..4000).map(at).collect();
        let every_tenth: Vec<_> = many.iter().step_by(10).cloned().collect();
        assert!(draw(&many) == draw(&every_tenth), "every tenth of 4000 is drawn");
        // All of exactly 400 are drawn: without the last one the drawing differs.
        assert!(draw(&every_tenth) != draw(&every_tenth[..399]));
    }
}
