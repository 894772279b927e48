//! Many short strokes over each other: grass, fur, needles, straw, brushwork.

use super::Sample;
use crate::elementary::{cos_turns, floor, sin_turns, smoothstep};
use crate::lattice::Lattice;
use crate::random::{Stream, hash_cell, hash_unit};

/// One stroke in each cell of a grid, drawn out along a slowly turning direction.
#[derive(Debug, Clone)]
pub(super) struct Strokes {
    lattice: Lattice,
    scale: [f32; 2],
    axes: [f32; 4],
    width: f32,
    edge: f32,
    disorder: f32,
    sway: f32,
    variety: f32,
    ground: f32,
    salt: u32,
}

impl Strokes {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let size = stream.log_range(2.0, 6.0).min(0.3 / pixel).max(0.6);
        let turns = stream.unit();
        Self {
            lattice: Lattice::new(),
            scale: [size, size / stream.log_range(1.5, 5.0)],
            axes: [cos_turns(turns), sin_turns(turns), -sin_turns(turns), cos_turns(turns)],
            width: stream.range(0.22, 0.55),
            edge: (pixel * size).max(0.08),
            disorder: stream.range(0.0, 0.12),
            sway: stream.range(0.0, 0.5),
            variety: stream.range(0.3, 1.0),
            ground: stream.range(0.0, 0.3),
            salt: stream.bits(),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let sway = self.lattice.noise(0.5 * u + 5.5, 0.5 * v);
        let x = (self.axes[0] * u + self.axes[1] * v + self.sway * sway) * self.scale[0];
        let y = (self.axes[2] * u + self.axes[3] * v) * self.scale[1];
        let (cx, cy) = (floor(x), floor(y));
        let (mut value, mut tint, mut top) = (self.ground + 0.1 * sway, sway, 0);
        let mut cover = 0.0;
        for oy in -1..=1 {
            for ox in -1..=1 {
                let hash = hash_cell(cx + ox, cy + oy, self.salt);
                if hash <= top {
                    continue;
                }
                let dx = x - (cx + ox) as f32 - hash_unit(hash, 0);
                let dy = y - (cy + oy) as f32 - hash_unit(hash, 1);
                // Lean, and a taper towards the end.
                let lean = dx + self.disorder * 8.0 * (hash_unit(hash, 2) - 0.5) * dy;
                let reach = 1.0 - dy * dy;
                let inside = self.width * reach - lean.abs();
                if inside > 0.0 {
                    let own = self.variety * (hash_unit(hash.rotate_left(5), 2) - 0.5);
                    value = 0.5 + own + 0.35 * dy - 0.4 * lean;
                    tint = 2.0 * hash_unit(hash.rotate_left(11), 1) - 1.0;
                    cover = smoothstep(0.0, self.edge, inside);
                    top = hash;
                }
            }
        }
        let value = if top == 0 { value } else { value * (0.35 + 0.65 * cover) };
        Sample { value, chroma: [tint, sway] }
    }
}
