//! Things laid side by side: bricks, planks, paving, hexagonal tiles.

use super::Sample;
use crate::elementary::{cos_turns, floor, sin_turns, smoothstep};
use crate::lattice::{Lattice, Octaves};
use crate::random::{Stream, hash_cell, hash_unit};

#[derive(Debug, Clone, Copy)]
enum Bond {
    /// Courses shifted by a share of a brick, at random where `ragged`.
    Courses { shift: f32, ragged: bool },
    /// Regular hexagons.
    Hexagons,
}

/// Units with their own brightness, a joint between them, and grain on each.
#[derive(Debug, Clone)]
pub(super) struct Masonry {
    lattice: Lattice,
    grain: Octaves,
    bond: Bond,
    axes: [f32; 4],
    joint: f32,
    edge: f32,
    variety: f32,
    roughness: f32,
    joint_value: f32,
    grain_stretch: f32,
    salt: u32,
}

impl Masonry {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let bond = if stream.chance(0.75) {
            Bond::Courses { shift: stream.range(0.0, 0.5), ragged: stream.chance(0.3) }
        } else {
            Bond::Hexagons
        };
        let length = match bond {
            Bond::Courses { .. } => stream.log_range(0.8, 6.0),
            Bond::Hexagons => 1.0,
        };
        let size = stream.log_range(1.0, 2.5).min(0.2 / pixel).max(0.5);
        let turns = 0.25 * stream.below(4) as f32 + 0.04 * stream.normal();
        let (sin, cos) = (size * sin_turns(turns), size * cos_turns(turns));
        Self {
            lattice: Lattice::new(),
            grain: Octaves::new(4, 0.6, pixel * 3.0 * size),
            bond,
            axes: [cos / length, sin / length, -sin, cos],
            joint: stream.range(0.02, 0.14),
            edge: (pixel * size).max(stream.range(0.02, 0.12)),
            variety: stream.range(0.05, 0.7),
            roughness: stream.range(0.05, 0.35),
            joint_value: if stream.chance(0.7) { stream.range(0.0, 0.25) } else { stream.range(0.75, 1.0) },
            grain_stretch: if stream.chance(0.4) { stream.log_range(2.0, 10.0) } else { 1.0 },
            salt: stream.bits(),
        }
    }

    /// The unit's hash and the distance to its border, in units of its height.
    #[inline]
    fn unit(&self, x: f32, y: f32) -> (u32, f32) {
        match self.bond {
            Bond::Courses { shift, ragged } => {
                let course = floor(y);
                let slide = if ragged { hash_unit(hash_cell(course, 0, self.salt), 0) } else { shift * course as f32 };
                let along = x + slide;
                let place = floor(along);
                let (fx, fy) = (along - place as f32, y - course as f32);
                let stretch =
                    self.axes[3].abs().max(self.axes[2].abs()) / self.axes[0].abs().max(self.axes[1].abs()).max(1e-6);
                let border = fy.min(1.0 - fy).min(fx.min(1.0 - fx) * stretch);
                (hash_cell(place, course, self.salt), border)
            }
            Bond::Hexagons => {
                // The nearer of two interleaved rectangular lattices is the hexagon's centre.
                const TALL: f32 = 1.732_05;
                let near = |ox: f32, oy: f32| {
                    let (cx, cy) = (floor(x - ox + 0.5), floor((y - oy) / TALL + 0.5));
                    let (dx, dy) = (x - ox - cx as f32, y - oy - cy as f32 * TALL);
                    (dx * dx + dy * dy, dx, dy, cx, cy)
                };
                let (a, b) = (near(0.0, 0.0), near(0.5, 0.5 * TALL));
                let odd = b.0 < a.0;
                let (_, dx, dy, cx, cy) = if odd { b } else { a };
                let reach = dx.abs().max(0.5 * dx.abs() + 0.5 * TALL * dy.abs());
                (hash_cell(cx, cy, self.salt ^ u32::from(odd)), 0.5 - reach)
            }
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let x = self.axes[0] * u + self.axes[1] * v;
        let y = self.axes[2] * u + self.axes[3] * v;
        let (hash, border) = self.unit(x, y);
        let shift = 40.0 * hash_unit(hash, 3);
        let grain = self.lattice.fractal(3.0 * x + shift, 3.0 * y * self.grain_stretch, self.grain);
        let worn = self.joint * (1.0 + 0.5 * grain);
        let face = smoothstep(worn - self.edge * 0.5, worn + self.edge * 0.5, border);
        let body = 0.5 + self.variety * (hash_unit(hash, 0) - 0.5) + self.roughness * grain;
        let value = self.joint_value + (body - self.joint_value) * face;
        let tint = 2.0 * hash_unit(hash, 1) - 1.0;
        Sample { value, chroma: [tint * face, 0.7 * grain] }
    }
}
