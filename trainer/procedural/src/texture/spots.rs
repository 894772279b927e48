//! Scattered dots over a ground: berries, gravel, petals, stains, polka dots.

use super::Sample;
use crate::elementary::{angle_turns, cos_turns, floor, smoothstep};
use crate::lattice::{Lattice, Octaves};
use crate::random::{Stream, hash_cell, hash_unit};

/// At most one dot in each cell, round or lobed, shaded like a ball or flat.
#[derive(Debug, Clone)]
pub(super) struct Spots {
    lattice: Lattice,
    ground: Octaves,
    scale: f32,
    jitter: f32,
    radius: [f32; 2],
    presence: f32,
    lobes: f32,
    lobe_depth: f32,
    relief: f32,
    edge: f32,
    roughness: f32,
    salt: u32,
}

impl Spots {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let scale = stream.log_range(1.0, 4.0).min(0.2 / pixel).max(0.4);
        let small = stream.range(0.12, 0.3);
        Self {
            lattice: Lattice::new(),
            ground: Octaves::new(4, 0.55, pixel),
            scale,
            jitter: stream.unit(),
            radius: [small, stream.range(0.05, 0.48 - small)],
            presence: stream.range(0.45, 1.0),
            lobes: if stream.chance(0.35) { (3 + stream.below(6)) as f32 } else { 0.0 },
            lobe_depth: stream.range(0.15, 0.5),
            relief: if stream.chance(0.5) { stream.range(0.2, 0.8) } else { 0.0 },
            edge: (1.2 * pixel * scale).max(stream.log_range(0.02, 0.15)),
            roughness: stream.range(0.05, 0.3),
            salt: stream.bits(),
        }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let (x, y) = (u * self.scale, v * self.scale);
        let ground = self.lattice.fractal(u + 3.0, v + 8.0, self.ground);
        let (cx, cy) = (floor(x), floor(y));
        let (mut cover, mut value, mut tint) = (0.0_f32, 0.0, 0.0);
        for oy in -1..=1 {
            for ox in -1..=1 {
                let hash = hash_cell(cx + ox, cy + oy, self.salt);
                let turned = hash.rotate_left(9);
                if hash_unit(turned, 0) > self.presence {
                    continue;
                }
                let dx = x - (cx + ox) as f32 - 0.5 - self.jitter * (hash_unit(hash, 0) - 0.5);
                let dy = y - (cy + oy) as f32 - 0.5 - self.jitter * (hash_unit(hash, 1) - 0.5);
                let radius = self.radius[0] + self.radius[1] * hash_unit(hash, 2);
                let mut distance = (dx * dx + dy * dy).sqrt();
                if distance > radius + self.edge {
                    continue;
                }
                if self.lobes > 0.0 {
                    let turn = angle_turns(dx, dy) * self.lobes + hash_unit(hash, 3);
                    distance *= 1.0 + self.lobe_depth * (1.0 + cos_turns(turn));
                }
                let inside = 1.0 - smoothstep(radius - self.edge, radius, distance);
                if inside > cover {
                    cover = inside;
                    let ball = self.relief * (0.5 - (dx + dy) / (radius + 0.05) * 0.4 - distance);
                    value = 0.75 + 0.3 * (hash_unit(turned, 1) - 0.5) + ball;
                    tint = 2.0 * hash_unit(turned, 2) - 1.0;
                }
            }
        }
        let back = 0.3 + self.roughness * ground;
        Sample { value: back + (value - back) * cover, chroma: [cover * (1.0 + tint) - 0.5, ground] }
    }
}
