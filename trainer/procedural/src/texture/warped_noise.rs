//! Noise whose plane is bent by other noise: smoke, liquid, marbled paper, bark.
//!
//! I. Quilez, "Domain warping", 2002: `f(p + g(p))`, with `g` a vector of noises.

use super::Sample;
use crate::elementary::sin_turns;
use crate::lattice::{Lattice, Octaves};
use crate::random::Stream;

/// Fractal noise under one bend, with the bend itself as a tint.
#[derive(Debug, Clone)]
pub(super) struct WarpedNoise {
    lattice: Lattice,
    base: Octaves,
    bend: Octaves,
    strength: [f32; 2],
    bend_scale: f32,
    offset: [f32; 2],
    bands: f32,
    contrast: f32,
}

impl WarpedNoise {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let strength = stream.log_range(0.4, 2.5);
        Self {
            lattice: Lattice::new(),
            base: Octaves::new(5, stream.range(0.35, 0.65), pixel * (1.0 + 0.5 * strength)),
            bend: Octaves::new(3, stream.range(0.3, 0.6), pixel),
            strength: [strength * stream.range(0.3, 1.0), strength * stream.range(0.3, 1.0)],
            bend_scale: stream.log_range(0.35, 1.2),
            offset: [stream.range(0.0, 128.0), stream.range(0.0, 128.0)],
            bands: if stream.chance(0.3) { stream.range(0.7, 3.0) } else { 0.0 },
            contrast: stream.range(0.3, 0.6),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let (x, y) = (u + self.offset[0], v + self.offset[1]);
        let (a, b) = (self.bend_scale * x, self.bend_scale * y);
        let dx = self.lattice.fractal(a + 1.7, b + 9.2, self.bend);
        let dy = self.lattice.fractal(a + 58.3, b + 2.8, self.bend);
        let (wx, wy) = (x + self.strength[0] * dx, y + self.strength[1] * dy);
        let height = self.lattice.fractal(wx, wy, self.base);
        let value = if self.bands > 0.0 {
            0.5 + self.contrast * sin_turns(self.bands * (height + 0.5 * dx))
        } else {
            0.5 + self.contrast * (height + 0.25 * dy)
        };
        Sample { value, chroma: [dx, dy] }
    }
}
