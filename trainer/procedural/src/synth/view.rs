//! Views of a flat painting through a homography.
//!
//! Coordinates are of pixel centres: `(0, 0)` is the middle of the top-left pixel, in the painting
//! as in the view.

use super::size::Size;
use densecl_vision::homography::Homography;

/// Red, green and blue, gamma-encoded, in about `[0, 1]`.
pub(super) type Rgb = [f32; 3];

/// Offsets of the four samples of a view's pixel: a box filter over the pixel's area.
const SAMPLES: [[f64; 2]; 4] = [[-0.25, -0.25], [0.25, -0.25], [-0.25, 0.25], [0.25, 0.25]];

/// A picture in floating point, in row order.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Painting {
    pub(super) width_px: usize,
    pub(super) height_px: usize,
    pub(super) colours: Vec<Rgb>,
}

impl Painting {
    /// The colour at `(x, y)`, bilinear; the border's colour outside.
    pub(super) fn at(&self, [x, y]: [f64; 2]) -> Rgb {
        let cell = |position: f64, length: usize| {
            let position = position.clamp(0.0, (length - 1) as f64);
            let before = (position as usize).min(length.saturating_sub(2));
            let after = (before + 1).min(length - 1);
            (before, after, (position - before as f64) as f32)
        };
        let (left, right, tx) = cell(x, self.width_px);
        let (top, bottom, ty) = cell(y, self.height_px);
        let pixel = |row: usize, column: usize| self.colours[row * self.width_px + column];
        let (a, b) = (pixel(top, left), pixel(top, right));
        let (c, d) = (pixel(bottom, left), pixel(bottom, right));
        std::array::from_fn(|i| {
            let upper = a[i] + (b[i] - a[i]) * tx;
            let lower = c[i] + (d[i] - c[i]) * tx;
            upper + (lower - upper) * ty
        })
    }

    /// The view whose pixel `p` shows the painting at `from_view.project_unchecked(p)`.
    pub(super) fn view(&self, from_view: &Homography, size: Size) -> Self {
        let (width_px, height_px) = (size.width_px as usize, size.height_px as usize);
        let mut colours = Vec::with_capacity(width_px * height_px);
        for y in 0..height_px {
            for x in 0..width_px {
                let mut sum = [0.0_f32; 3];
                for [dx, dy] in SAMPLES {
                    let colour = self.at(from_view.project_unchecked([x as f64 + dx, y as f64 + dy]));
                    sum.iter_mut().zip(colour).for_each(|(total, channel)| *total += channel);
                }
                colours.push(sum.map(|total| 0.25 * total));
            }
        }
        Self { width_px, height_px, colours }
    }

    /// The binary PPM file of this picture.
    pub(super) fn to_ppm(&self) -> Vec<u8> {
        let mut bytes = format!("P6\n{} {}\n255\n", self.width_px, self.height_px).into_bytes();
        bytes.extend(self.to_bytes());
        bytes
    }

    /// RGB bytes in row order.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        // A float becomes a byte by clamping.
        self.colours.iter().flatten().map(|channel| (channel * 255.0 + 0.5) as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bilinear_sampling_is_exact_on_a_slope() {
        let (width_px, height_px) = (9, 7);
        let colours = (0..63_u8).map(|i| [f32::from(i % 9), f32::from(i / 9), 1.0]).collect();
        let painting = Painting { width_px, height_px, colours };
        for (point, expected) in [([3.25, 4.5], [3.25, 4.5, 1.0]), ([-5.0, 100.0], [0.0, 6.0, 1.0])] {
            let colour = painting.at(point);
            assert!(colour.iter().zip(expected).all(|(channel, exact)| (channel - exact).abs() < 1e-6));
        }
        let size = Size { width_px: 4, height_px: 3 };
        let view = painting.view(&Homography::translation(2.0, 1.5), size);
        for (index, colour) in view.colours.iter().enumerate() {
            let expected = [2.0 + (index % 4) as f32, 1.5 + (index / 4) as f32];
            assert!((colour[0] - expected[0]).abs() < 1e-5 && (colour[1] - expected[1]).abs() < 1e-5);
        }
    }

    #[test]
    fn ppm_is_rounded_and_clamped() {
        let colours = vec![[0.0, 0.5, 1.0], [-3.0, 7.0, 0.001]];
        let ppm = Painting { width_px: 2, height_px: 1, colours }.to_ppm();
        assert_eq!(ppm, b"P6\n2 1\n255\n\x00\x80\xff\x00\xff\x00");
    }
}
