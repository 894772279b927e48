//! Patterns with a direction: stripes, plaids, checks, ripples, woven cloth.

use super::Sample;
use crate::elementary::{cos_turns, floor, fraction, sin_turns, smoothstep};
use crate::lattice::Lattice;
use crate::random::Stream;

#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// Bars of a given duty.
    Stripes { duty: f32 },
    /// Smooth waves with a harmonic.
    Waves { harmonic: f32 },
    /// Two sets of stripes laid over each other.
    Plaid { duty: f32, balance: f32 },
    /// A chess board.
    Checks,
    /// Stripes whose strength comes and goes, as in a sum of Gabor patches.
    Patches,
    /// Over-and-under threads.
    Weave,
}

/// A periodic pattern, its plane wobbled and its contrast worn by noise.
#[derive(Debug, Clone)]
pub(super) struct Oriented {
    lattice: Lattice,
    pattern: Pattern,
    axes: [f32; 4],
    wobble: f32,
    wear: f32,
    edge: f32,
    contrast: f32,
    offset: f32,
}

impl Oriented {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let duty = stream.range(0.2, 0.8);
        let pattern = match stream.weighted(&[0.25, 0.2, 0.17, 0.12, 0.12, 0.14]) {
            0 => Pattern::Stripes { duty },
            1 => Pattern::Waves { harmonic: stream.range(-0.6, 0.6) },
            2 => Pattern::Plaid { duty, balance: stream.range(0.25, 0.75) },
            3 => Pattern::Checks,
            4 => Pattern::Patches,
            _ => Pattern::Weave,
        };
        let frequency = stream.log_range(0.8, 3.0).min(0.3 / pixel).max(0.3);
        let aspect = if stream.chance(0.6) { 1.0 } else { stream.log_range(0.4, 2.5) };
        let turns = stream.unit();
        let (sin, cos) = (frequency * sin_turns(turns), frequency * cos_turns(turns));
        Self {
            lattice: Lattice::new(),
            pattern,
            axes: [cos, sin, -sin * aspect, cos * aspect],
            wobble: if stream.chance(0.7) { stream.log_range(0.05, 0.9) } else { 0.0 },
            wear: stream.range(0.0, 0.35),
            edge: (1.2 * pixel * frequency).max(stream.log_range(0.02, 0.3)).min(0.45),
            contrast: stream.range(0.25, 0.5),
            offset: stream.range(0.0, 128.0),
        }
    }

    /// 1 inside a bar of width `duty` of every period, 0 outside, soft at both sides.
    #[inline]
    fn bar(&self, phase: f32, duty: f32) -> f32 {
        let distance = (fraction(phase) - 0.5).abs() - 0.5 * duty;
        1.0 - smoothstep(-0.5 * self.edge, 0.5 * self.edge, distance)
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let (nu, nv) = (0.4 * u + self.offset, 0.4 * v);
        let drift = self.lattice.noise(nu, nv);
        let grain = self.lattice.noise(7.3 * nu + 3.0, 7.3 * nv);
        let x = self.axes[0] * u + self.axes[1] * v + self.wobble * drift;
        let y = self.axes[2] * u + self.axes[3] * v + 0.5 * self.wobble * grain;
        let height = match self.pattern {
            Pattern::Stripes { duty } => 2.0 * self.bar(x, duty) - 1.0,
            Pattern::Waves { harmonic } => {
                let wave = sin_turns(x);
                wave + harmonic * (wave * wave - 0.5)
            }
            Pattern::Plaid { duty, balance } => {
                let mix = balance * self.bar(x, duty) + (1.0 - balance) * self.bar(y, duty);
                2.0 * mix - 1.0
            }
            Pattern::Checks => (2.0 * self.bar(x, 0.5) - 1.0) * (2.0 * self.bar(y, 0.5) - 1.0),
            Pattern::Patches => sin_turns(x) * (0.4 + 1.2 * drift).clamp(0.0, 1.0),
            Pattern::Weave => {
                let over = (floor(x) + floor(y)) & 1 == 0;
                let (across, length) = if over { (y, x) } else { (x, y) };
                let thread = 1.0 - (2.0 * fraction(across) - 1.0).abs();
                0.9 * thread + 0.4 * sin_turns(fraction(length) * 0.5) - 0.7
            }
        };
        let value = 0.5 + self.contrast * height + self.wear * (0.6 * grain + 0.5 * drift);
        Sample { value, chroma: [drift, height * 0.6] }
    }
}
