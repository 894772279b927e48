//! Layers seen in section: wood, marble, agate, sedimentary rock.

use super::Sample;
use crate::elementary::{cos_turns, fraction, sin_turns};
use crate::lattice::{Lattice, Octaves};
use crate::random::Stream;

#[derive(Debug, Clone, Copy)]
enum Profile {
    /// Growth rings around a far axis, with a slow rise and a sharp fall.
    Rings { sharpness: f32 },
    /// Thin bright or dark veins.
    Marble { thinness: f32 },
    /// Layers of random tone.
    Strata,
}

/// Distance along one axis, bent by noise, through a periodic profile.
#[derive(Debug, Clone)]
pub(super) struct Veins {
    lattice: Lattice,
    bend: Octaves,
    fibre: Octaves,
    profile: Profile,
    axes: [f32; 4],
    centre: [f32; 2],
    frequency: f32,
    turbulence: f32,
    fibres: f32,
    inverted: bool,
}

impl Veins {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let profile = match stream.weighted(&[0.4, 0.35, 0.25]) {
            0 => Profile::Rings { sharpness: stream.range(0.1, 0.5) },
            1 => Profile::Marble { thinness: stream.range(1.5, 7.0) },
            _ => Profile::Strata,
        };
        let turns = stream.unit();
        let (sin, cos) = (sin_turns(turns), cos_turns(turns));
        let far = stream.range(0.0, 3.0);
        Self {
            lattice: Lattice::new(),
            bend: Octaves::new(5, stream.range(0.4, 0.6), pixel),
            fibre: Octaves::new(3, 0.6, pixel * 6.0),
            profile,
            axes: [cos, sin, -sin, cos],
            centre: [far, stream.range(-0.5, 0.5)],
            frequency: stream.log_range(1.2, 5.0).min(0.25 / pixel).max(0.5),
            turbulence: stream.log_range(0.05, 0.8),
            fibres: stream.range(0.0, 0.25),
            inverted: stream.chance(0.4),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let x = self.axes[0] * u + self.axes[1] * v + self.centre[0];
        let y = self.axes[2] * u + self.axes[3] * v + self.centre[1];
        let bend = self.lattice.fractal(0.8 * x + 3.3, 0.8 * y, self.bend);
        let value = match self.profile {
            Profile::Rings { sharpness } => {
                // The rings of a log sawn lengthwise: ellipses drawn out along the grain.
                let radius = (x * x + 0.03 * y * y).sqrt() + self.turbulence * 0.4 * bend;
                let part = fraction(self.frequency * radius);
                let rise = part / (1.0 - sharpness);
                let fall = (1.0 - part) / sharpness;
                rise.min(fall)
            }
            Profile::Marble { thinness } => {
                let wave = sin_turns(0.5 * self.frequency * (x + self.turbulence * 2.0 * bend));
                1.0 / (1.0 + thinness * wave.abs())
            }
            Profile::Strata => {
                let depth = self.frequency * (x + self.turbulence * 0.5 * bend);
                0.5 + 0.6 * self.lattice.noise(depth, 0.37) + 0.2 * self.lattice.noise(3.1 * depth, 9.5)
            }
        };
        let fibre = self.lattice.fractal(6.0 * x + 1.5 * bend, 0.7 * y, self.fibre);
        let value = 0.15 + 0.7 * value + self.fibres * fibre;
        let value = if self.inverted { 1.0 - value } else { value };
        Sample { value, chroma: [bend, 0.5 * fibre] }
    }
}
