//! Lines and discs with smooth edges.

use image::{Rgb, RgbImage};

/// A place in an image, in pixels, `(0, 0)` at the centre of the top-left one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) x: f32,
    pub(super) y: f32,
}

/// A stroke from a point to another, round at its ends; a disc if they are one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stroke {
    pub(super) from: Point,
    pub(super) to: Point,
    /// Half its width, in pixels.
    pub(super) radius_px: f32,
    pub(super) colour: Rgb<u8>,
    /// 0 draws nothing, 1 hides what is below.
    pub(super) opacity: f32,
}

impl Stroke {
    /// An opaque disc.
    pub(super) fn disc(centre: Point, radius_px: f32, colour: Rgb<u8>) -> Self {
        Self { from: centre, to: centre, radius_px, colour, opacity: 1.0 }
    }

    /// A dark rim to lie below the stroke, so that it shows on any ground.
    pub(super) fn rim(self, width_px: f32) -> Self {
        Self { radius_px: self.radius_px + width_px, colour: Rgb([0; 3]), opacity: 0.6 * self.opacity, ..self }
    }

    /// Draws it; what lies outside the image is left out.
    pub(super) fn draw(&self, image: &mut RgbImage) {
        let reach = self.radius_px + 1.0;
        let range = |a: f32, b: f32, end: u32| {
            let (low, high) = (a.min(b) - reach, a.max(b) + reach);
            (low.floor().max(0.0) as u32)..((high.ceil() + 1.0).clamp(0.0, end as f32) as u32)
        };
        for y in range(self.from.y, self.to.y, image.height()) {
            for x in range(self.from.x, self.to.x, image.width()) {
                let distance = self.distance(Point { x: x as f32, y: y as f32 });
                let cover = (self.radius_px + 0.5 - distance).clamp(0.0, 1.0) * self.opacity;
                blend(image.get_pixel_mut(x, y), self.colour, cover);
            }
        }
    }

    /// From a point to the stroke's middle line, in pixels.
    fn distance(&self, point: Point) -> f32 {
        let (dx, dy) = (self.to.x - self.from.x, self.to.y - self.from.y);
        let (px, py) = (point.x - self.from.x, point.y - self.from.y);
        let length = dx * dx + dy * dy;
        let along = if length > 0.0 { ((px * dx + py * dy) / length).clamp(0.0, 1.0) } else { 0.0 };
        (px - along * dx).hypot(py - along * dy)
    }
}

fn blend(pixel: &mut Rgb<u8>, colour: Rgb<u8>, cover: f32) {
    for (below, above) in pixel.0.iter_mut().zip(colour.0) {
        *below = (f32::from(*below) * (1.0 - cover) + f32::from(above) * cover).round() as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: Rgb<u8> = Rgb([255, 0, 0]);

    #[test]
    fn a_line_covers_its_ends_and_its_middle_and_nothing_far_away() {
        let mut image = RgbImage::new(20, 20);
        let (from, to) = (Point { x: 2.0, y: 2.0 }, Point { x: 16.0, y: 16.0 });
        Stroke { from, to, radius_px: 1.0, colour: RED, opacity: 1.0 }.draw(&mut image);
        for at in [2, 9, 16] {
            assert_eq!(*image.get_pixel(at, at), RED);
        }
        assert_eq!(*image.get_pixel(16, 2), Rgb([0; 3]));
        assert_eq!(*image.get_pixel(19, 19), Rgb([0; 3]));
    }

    #[test]
    fn strokes_outside_the_picture_are_cut_off() {
        let mut image = RgbImage::new(4, 4);
        Stroke::disc(Point { x: -9.0, y: 40.0 }, 3.0, RED).draw(&mut image);
        assert!(image.pixels().all(|pixel| *pixel == Rgb([0; 3])));
        Stroke::disc(Point { x: 0.0, y: 0.0 }, 9.0, RED).draw(&mut image);
        assert!(image.pixels().all(|pixel| *pixel == RED));
    }
}
