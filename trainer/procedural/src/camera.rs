//! From the painted scene to a photograph of it: exposure, contrast, colour cast, vignette, blur and
//! sensor noise, then 8 bits.

use crate::canvas::{Canvas, Frame};
use crate::colour::Rgb;
use crate::random::{Purpose, Stream, hash_cell, hash_unit};

/// Exposure, blur and noise of one picture.
#[derive(Debug, Clone)]
pub(crate) struct Camera {
    gain: Rgb,
    contrast: f32,
    haze: f32,
    vignette: f32,
    blur: f32,
    noise: f32,
    salt: u32,
}

impl Camera {
    /// The camera of one image. `key` is the scene's seed and index.
    pub(crate) fn sample(seed: u64, key: u64) -> Self {
        let stream = &mut Stream::new(Purpose::Camera, seed, key);
        let exposure = 1.0 + 0.14 * stream.normal();
        let warmth = 0.05 * stream.normal();
        Self {
            gain: [exposure + warmth, exposure, exposure - warmth],
            contrast: stream.range(0.85, 1.3),
            haze: if stream.chance(0.2) { stream.range(0.0, 0.2) } else { 0.0 },
            vignette: if stream.chance(0.4) { stream.range(0.0, 0.5) } else { 0.0 },
            blur: if stream.chance(0.5) { stream.range(0.1, 1.0) } else { 0.0 },
            noise: if stream.chance(0.6) { stream.log_range(0.004, 0.04) } else { 0.0 },
            salt: stream.bits(),
        }
    }

    /// Develops a canvas into RGB bytes in row order.
    ///
    /// `pixels` has three bytes for each of the frame's pixels.
    pub(crate) fn develop(&self, canvas: &Canvas, frame: Frame, pixels: &mut [u8]) {
        let mut colours: Vec<Rgb> = canvas.colours().collect();
        if self.blur > 0.0 {
            soften(&mut colours, frame, self.blur);
        }
        let exposure = automatic_exposure(&colours);
        let (half_w, half_h) = (0.5 * frame.width_px as f32, 0.5 * frame.height_px as f32);
        let rows = colours.chunks_exact(frame.width_px).zip(pixels.chunks_exact_mut(3 * frame.width_px));
        for (y, (row, bytes)) in rows.enumerate() {
            let dy = (y as f32 + 0.5) / half_h - 1.0;
            for (x, (colour, rgb)) in row.iter().zip(bytes.chunks_exact_mut(3)).enumerate() {
                let dx = (x as f32 + 0.5) / half_w - 1.0;
                let falloff = 1.0 - 0.5 * self.vignette * (dx * dx + dy * dy);
                let hash = hash_cell(x as i32, y as i32, self.salt);
                for (c, byte) in rgb.iter_mut().enumerate() {
                    let grain = hash_unit(hash, c as u32) + hash_unit(hash, 3) - 1.0;
                    let lit = colour[c] * self.gain[c] * falloff * exposure;
                    let toned = 0.45 + self.contrast * (lit - 0.45);
                    let hazed = toned + self.haze * (0.75 - toned) + 2.0 * self.noise * grain;
                    *byte = (hazed * 255.0 + 0.5) as u8;
                }
            }
        }
    }
}

/// The factor that brings a picture too dark or too light into the range that cameras aim for.
pub(crate) fn automatic_exposure(colours: &[Rgb]) -> f32 {
    let sum: f32 = colours.iter().map(|[red, green, blue]| red + green + blue).sum();
    let mean = (sum / (3 * colours.len()) as f32).max(0.02);
    (mean.clamp(0.3, 0.58) / mean).min(5.0)
}

/// A binomial 3 × 3 blur, mixed with the sharp picture by `strength`.
fn soften(colours: &mut [Rgb], frame: Frame, strength: f32) {
    let side = 0.25 * strength;
    let middle = 1.0 - 2.0 * side;
    let width = frame.width_px;
    for row in colours.chunks_exact_mut(width) {
        let mut before = row[0];
        for x in 0..width {
            let here = row[x];
            let after = row[(x + 1).min(width - 1)];
            row[x] = std::array::from_fn(|c| middle * here[c] + side * (before[c] + after[c]));
            before = here;
        }
    }
    let mut above: Vec<Rgb> = colours[..width].to_vec();
    for y in 0..frame.height_px {
        let next = (y + 1).min(frame.height_px - 1) * width;
        for (x, above) in above.iter_mut().enumerate() {
            let here = colours[y * width + x];
            let below = colours[next + x];
            colours[y * width + x] = std::array::from_fn(|c| middle * here[c] + side * (above[c] + below[c]));
            *above = here;
        }
    }
}
