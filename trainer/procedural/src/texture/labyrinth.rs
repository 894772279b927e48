//! Band-limited noise cut at its middle: coral, fingerprints, zebra and brain patterns.
//!
//! Held out: training never draws this family.

use super::Sample;
use crate::elementary::{cos_turns, sin_turns};
use crate::lattice::Lattice;
use crate::random::Stream;

const WAVES: usize = 10;

/// A sum of plane waves of nearly one wavelength and all directions, sharpened.
#[derive(Debug, Clone)]
pub(super) struct Labyrinth {
    lattice: Lattice,
    waves: [[f32; 3]; WAVES],
    sharpness: f32,
    level: f32,
    warp: f32,
    roughness: f32,
}

impl Labyrinth {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let frequency = stream.log_range(0.8, 2.5).min(0.25 / pixel).max(0.3);
        let waves = std::array::from_fn(|_| {
            let (turns, length) = (stream.unit(), frequency * stream.range(0.85, 1.15));
            [length * cos_turns(turns), length * sin_turns(turns), stream.unit()]
        });
        Self {
            lattice: Lattice::new(),
            waves,
            sharpness: stream.range(0.4, 2.0),
            level: stream.range(-0.8, 0.8),
            warp: stream.range(0.0, 0.4),
            roughness: stream.range(0.0, 0.2),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let bend = self.lattice.noise(0.7 * u, 0.7 * v);
        let grain = self.lattice.noise(4.3 * u, 4.3 * v);
        let (x, y) = (u + self.warp * bend, v - self.warp * bend);
        let sum: f32 = self.waves.iter().map(|[a, b, phase]| sin_turns(a * x + b * y + phase)).sum();
        let height = (self.sharpness * (sum - self.level)).clamp(-1.0, 1.0);
        Sample { value: 0.5 + 0.4 * height + self.roughness * grain, chroma: [bend, 0.7 * height] }
    }
}
