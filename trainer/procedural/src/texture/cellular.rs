//! Voronoi cells: pebbles, scales, cracked mud, leaves, foam.
//!
//! S. Worley, "A cellular texture basis function", SIGGRAPH 1996.

use super::Sample;
use crate::elementary::{floor, smoothstep};
use crate::lattice::Lattice;
use crate::random::{Stream, hash_cell, hash_unit};

#[derive(Debug, Clone, Copy)]
enum Look {
    /// Flat cells with thin dark borders.
    Mosaic,
    /// Domes: bright centres.
    Pebbles,
    /// Borders alone.
    Cracks,
    /// Distance to the nearest site.
    Foam,
}

/// Distances to the two nearest of jittered sites, and the nearest site's own brightness.
#[derive(Debug, Clone)]
pub(super) struct Cellular {
    lattice: Lattice,
    look: Look,
    jitter: f32,
    scale: [f32; 2],
    warp: f32,
    border: f32,
    variety: f32,
    grain: f32,
    salt: u32,
}

impl Cellular {
    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let look = match stream.weighted(&[0.3, 0.3, 0.2, 0.2]) {
            0 => Look::Mosaic,
            1 => Look::Pebbles,
            2 => Look::Cracks,
            _ => Look::Foam,
        };
        let size = stream.log_range(0.8, 3.0).min(0.25 / pixel).max(0.4);
        let aspect = if stream.chance(0.6) { 1.0 } else { stream.log_range(0.4, 1.0) };
        Self {
            lattice: Lattice::new(),
            look,
            jitter: stream.range(0.5, 1.0),
            scale: [size, size * aspect],
            warp: if stream.chance(0.5) { stream.range(0.1, 0.7) } else { 0.0 },
            border: (1.5 * pixel * size).max(stream.range(0.03, 0.2)),
            variety: stream.range(0.1, 0.9),
            grain: stream.range(0.0, 0.2),
            salt: stream.bits(),
        }
    }

    /// Distances to the nearest and second nearest site, and the nearest one's hash.
    #[inline]
    fn nearest(&self, x: f32, y: f32) -> (f32, f32, u32) {
        let (cx, cy) = (floor(x), floor(y));
        let (fx, fy) = (x - cx as f32, y - cy as f32);
        let (mut first, mut second, mut owner) = (9.0_f32, 9.0_f32, 0);
        for oy in -1..=1 {
            for ox in -1..=1 {
                let hash = hash_cell(cx + ox, cy + oy, self.salt);
                let dx = ox as f32 + 0.5 + self.jitter * (hash_unit(hash, 0) - 0.5) - fx;
                let dy = oy as f32 + 0.5 + self.jitter * (hash_unit(hash, 1) - 0.5) - fy;
                let distance = dx * dx + dy * dy;
                second = second.min(distance.max(first));
                if distance < first {
                    first = distance;
                    owner = hash;
                }
            }
        }
        (first.sqrt(), second.sqrt(), owner)
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let (x, y) = (u * self.scale[0], v * self.scale[1]);
        let noise = self.lattice.noise(2.1 * x + 11.0, 2.1 * y);
        let turned = self.lattice.noise(2.1 * y + 31.0, 2.1 * x);
        let (near, next, owner) = self.nearest(x + self.warp * noise, y + self.warp * turned);
        let gap = smoothstep(0.0, self.border, next - near);
        let own = self.variety * (hash_unit(owner, 2) - 0.5);
        let value = match self.look {
            Look::Mosaic => (0.55 + own) * (0.25 + 0.75 * gap),
            Look::Pebbles => (0.95 + 0.6 * own - 0.9 * near) * (0.35 + 0.65 * gap),
            Look::Cracks => 0.1 + gap * (0.6 + 0.25 * own),
            Look::Foam => near + 0.3 * own,
        } + self.grain * noise;
        Sample { value, chroma: [2.0 * hash_unit(owner, 3) - 1.0, noise] }
    }
}
