//! Circular ripples from several sources crossing each other: water, moiré, tree-shade.
//!
//! Held out: training never draws this family.

use super::Sample;
use crate::elementary::{fraction, sin_turns};
use crate::lattice::Lattice;
use crate::random::Stream;

const SOURCES: usize = 4;

/// A sum of damped rings around points scattered over a patch that repeats by reflection.
#[derive(Debug, Clone)]
pub(super) struct Interference {
    lattice: Lattice,
    sources: [[f32; 3]; SOURCES],
    damping: f32,
    roughness: f32,
    folds: f32,
}

impl Interference {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let highest = (0.25 / pixel).max(0.3);
        let sources = std::array::from_fn(|_| {
            let frequency = stream.log_range(0.8, 3.5).min(highest);
            [stream.range(-2.0, 2.0), stream.range(-2.0, 2.0), frequency]
        });
        Self {
            lattice: Lattice::new(),
            sources,
            damping: stream.range(0.1, 0.9),
            roughness: stream.range(0.0, 0.3),
            folds: stream.range(0.5, 1.5),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let noise = self.lattice.noise(1.3 * u, 1.3 * v);
        let fold = |x: f32| (fraction(x / 12.0) * 12.0 - 6.0).abs() - 3.0;
        let (x, y) = (fold(u + 0.2 * noise), fold(v));
        let mut height = 0.0;
        for &[sx, sy, frequency] in &self.sources {
            let radius = ((x - sx) * (x - sx) + (y - sy) * (y - sy)).sqrt();
            height += sin_turns(frequency * radius) / (1.0 + self.damping * radius);
        }
        let value = 0.5 + 0.45 * sin_turns(0.25 * self.folds * height) + self.roughness * noise;
        Sample { value, chroma: [0.5 * height, noise] }
    }
}
