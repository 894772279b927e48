//! Noise with a 1/f^α spectrum: stone, cloth, cloud, soil, plaster.

use super::Sample;
use crate::elementary::{cos_turns, sin_turns};
use crate::lattice::{Lattice, Octaves};
use crate::random::Stream;

#[derive(Debug, Clone, Copy)]
enum Profile {
    /// The plain sum.
    Rough,
    /// Puffs: the absolute value of the sum.
    Billow,
    /// Sharp crests.
    Ridged,
    /// Two tones with a ragged border.
    Threshold { softness: f32 },
    /// Contour bands.
    Terraced { steps: f32 },
}

/// Octaves of noise through one of several profiles, stretched along one direction.
#[derive(Debug, Clone)]
pub(super) struct FractalNoise {
    lattice: Lattice,
    octaves: Octaves,
    tint: Octaves,
    axes: [f32; 4],
    offset: [f32; 2],
    profile: Profile,
    contrast: f32,
}

impl FractalNoise {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        // A gain of 2^-α' per octave; 0.5 is 1/f in amplitude, as photographs have.
        let gain = stream.range(0.38, 0.8);
        let stretch = if stream.chance(0.35) { stream.log_range(1.5, 8.0) } else { 1.0 };
        let turns = stream.unit();
        let (sin, cos) = (sin_turns(turns), cos_turns(turns));
        let profile = match stream.weighted(&[0.5, 0.12, 0.14, 0.14, 0.1]) {
            0 => Profile::Rough,
            1 => Profile::Billow,
            2 => Profile::Ridged,
            3 => Profile::Threshold { softness: stream.log_range(0.03, 0.5) },
            _ => Profile::Terraced { steps: stream.range(2.0, 7.0) },
        };
        Self {
            lattice: Lattice::new(),
            octaves: Octaves::new(6, gain, pixel * stretch),
            tint: Octaves::new(2, 0.5, pixel),
            axes: [cos * stretch, sin * stretch, -sin, cos],
            offset: [stream.range(0.0, 128.0), stream.range(0.0, 128.0)],
            profile,
            contrast: stream.range(0.25, 0.6),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let x = self.axes[0] * u + self.axes[1] * v + self.offset[0];
        let y = self.axes[2] * u + self.axes[3] * v + self.offset[1];
        let value = match self.profile {
            Profile::Rough => 0.5 + self.contrast * self.lattice.fractal(x, y, self.octaves),
            Profile::Billow => 2.0 * self.contrast * self.lattice.fractal(x, y, self.octaves).abs(),
            Profile::Ridged => {
                let crest = self.lattice.ridged(x, y, self.octaves);
                0.5 + 1.5 * self.contrast * (crest - 0.5)
            }
            Profile::Threshold { softness } => {
                let height = self.lattice.fractal(x, y, self.octaves);
                0.5 + (height / softness).clamp(-1.0, 1.0) * self.contrast + 0.08 * height
            }
            Profile::Terraced { steps } => {
                let height = (0.5 + 0.5 * self.lattice.fractal(x, y, self.octaves)) * steps;
                let step = super::super::elementary::floor(height) as f32;
                let part = height - step;
                (step + part * part * part) / steps
            }
        };
        let tint = self.lattice.fractal(0.43 * x + 7.7, 0.43 * y - 3.1, self.tint);
        Sample { value, chroma: [tint, 1.4 * (value - 0.5) * tint] }
    }
}
