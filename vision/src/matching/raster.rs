//! Anti-aliased lines, discs and rings.

use ::image::Rgb;

use crate::image::RgbImage;

/// A point of a canvas in pixels; the centre of the top-left pixel is `(0, 0)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CanvasPoint {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// Colour and width of a drawn line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pen {
    pub(super) color: Rgb<u8>,
    /// From 0 (invisible) to 1.
    pub(super) opacity: f32,
    /// In pixels.
    pub(super) width: f32,
}

/// Draws a straight line with round ends. Only the pixels along it are visited, not those of its bounding box.
pub(super) fn draw_line(canvas: &mut RgbImage, from: CanvasPoint, to: CanvasPoint, pen: Pen) {
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let steep = dy.abs() > dx.abs();
    // The loop runs along the axis in which the line is longer, over a few pixels on either side of it.
    let swap = |point: CanvasPoint| if steep { CanvasPoint { x: point.y, y: point.x } } else { point };
    let (start, end) = (swap(from), swap(to));
    let (start, end) = if start.x <= end.x { (start, end) } else { (end, start) };
    let slope = if end.x > start.x { (end.y - start.y) / (end.x - start.x) } else { 0.0 };
    // Farther away nothing of a pixel is covered.
    let reach = (pen.width / 2.0 + 0.5) * (1.0 + slope * slope).sqrt();
    let length = if steep { canvas.height() } else { canvas.width() };
    let first = (start.x - pen.width - 1.0).floor().max(0.0) as u32;
    let last = (end.x + pen.width + 1.0).ceil().min(length as f32 - 1.0);
    for along in first..(last + 1.0).max(0.0) as u32 {
        let middle = start.y + (along as f32).clamp(start.x, end.x) * slope - start.x * slope;
        // Cutting off differs from rounding down for negative numbers alone, which are off the canvas.
        let across = (middle - reach) as i64..=(middle + reach) as i64 + 1;
        for across in across {
            let (x, y) = if steep { (across, i64::from(along)) } else { (i64::from(along), across) };
            let distance = distance_to_segment(CanvasPoint { x: x as f32, y: y as f32 }, from, to);
            blend(canvas, (x, y), pen, pen.width / 2.0 - distance);
        }
    }
}

/// Draws a filled disc.
pub(super) fn draw_disc(canvas: &mut RgbImage, center: CanvasPoint, radius: f32, pen: Pen) {
    around(center, radius, |x, y, distance| blend(canvas, (x, y), pen, radius - distance));
}

/// Draws a circle with the pen's width.
pub(super) fn draw_ring(canvas: &mut RgbImage, center: CanvasPoint, radius: f32, pen: Pen) {
    around(center, radius + pen.width, |x, y, distance| {
        blend(canvas, (x, y), pen, pen.width / 2.0 - (distance - radius).abs());
    });
}

/// Calls `visit` with every pixel within `radius + 1` of `center`, and its distance.
fn around(center: CanvasPoint, radius: f32, mut visit: impl FnMut(i64, i64, f32)) {
    let reach = radius + 1.0;
    for y in (center.y - reach).floor() as i64..=(center.y + reach).ceil() as i64 {
        for x in (center.x - reach).floor() as i64..=(center.x + reach).ceil() as i64 {
            visit(x, y, norm(x as f32 - center.x, y as f32 - center.y));
        }
    }
}

/// Blends the pen's colour into a pixel whose centre is `inside` pixels within the edge of the shape.
fn blend(canvas: &mut RgbImage, (x, y): (i64, i64), pen: Pen, inside: f32) {
    let coverage = (inside + 0.5).clamp(0.0, 1.0) * pen.opacity;
    if coverage == 0.0 {
        return;
    }
    let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
    let Some(pixel) = canvas.get_pixel_mut_checked(x, y) else { return };
    for (value, &color) in pixel.0.iter_mut().zip(&pen.color.0) {
        // No value is negative, so that this rounds as `round`, which is a call.
        *value = (f32::from(*value) + (f32::from(color) - f32::from(*value)) * coverage + 0.5) as u8;
    }
}

fn distance_to_segment(point: CanvasPoint, from: CanvasPoint, to: CanvasPoint) -> f32 {
    let (dx, dy) = (to.x - from.x, to.y - from.y);
    let squared_length = dx * dx + dy * dy;
    let along =
        if squared_length > 0.0 { ((point.x - from.x) * dx + (point.y - from.y) * dy) / squared_length } else { 0.0 };
    let along = along.clamp(0.0, 1.0);
    norm(point.x - from.x - along * dx, point.y - from.y - along * dy)
}

/// The length of a vector of some pixels. `hypot`, which also serves the largest numbers, takes longer.
fn norm(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEN: Pen = Pen { color: Rgb([255, 255, 255]), opacity: 1.0, width: 1.0 };

    fn total(canvas: &RgbImage) -> f32 {
        canvas.pixels().map(|pixel| f32::from(pixel[0]) / 255.0).sum()
    }

    #[test]
    fn a_line_covers_its_length_times_its_width() {
        for (x, y) in [(50.0, 10.0), (10.0, 50.0), (45.0, 45.0), (45.0, 30.0), (20.0, 55.0)] {
            let mut canvas = RgbImage::new(64, 64);
            draw_line(&mut canvas, CanvasPoint { x, y }, CanvasPoint { x: 10.0, y: 10.0 }, Pen { width: 2.0, ..PEN });
            let expected = (x - 10.0_f32).hypot(y - 10.0) * 2.0 + std::f32::consts::PI;
            assert!((total(&canvas) - expected).abs() < 0.05 * expected, "{x} {y}: {} {expected}", total(&canvas));
        }
    }

    #[test]
    fn shapes_are_cut_off_at_the_edge() {
        let mut canvas = RgbImage::new(8, 8);
        draw_line(&mut canvas, CanvasPoint { x: -100.0, y: -100.0 }, CanvasPoint { x: 100.0, y: 100.0 }, PEN);
        draw_line(&mut canvas, CanvasPoint { x: -5.0, y: 90.0 }, CanvasPoint { x: -5.0, y: 100.0 }, PEN);
        draw_disc(&mut canvas, CanvasPoint { x: 9.0, y: 9.0 }, 3.0, PEN);
        draw_ring(&mut canvas, CanvasPoint { x: -4.0, y: 3.0 }, 6.0, PEN);
        assert_eq!(canvas.get_pixel(3, 3), &PEN.color);
    }

    #[test]
    fn discs_and_rings_have_their_areas() {
        let mut canvas = RgbImage::new(64, 64);
        draw_disc(&mut canvas, CanvasPoint { x: 31.3, y: 32.8 }, 8.0, PEN);
        assert!((total(&canvas) - 64.0 * std::f32::consts::PI).abs() < 4.0);
        let mut canvas = RgbImage::new(64, 64);
        draw_ring(&mut canvas, CanvasPoint { x: 31.3, y: 32.8 }, 8.0, Pen { width: 2.0, ..PEN });
        assert!((total(&canvas) - 32.0 * std::f32::consts::PI).abs() < 4.0);
    }
}
