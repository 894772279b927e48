//! Attractors of iterated functions: ferns, shells, flames, lace.
//!
//! S. Draves and E. Reckase, "The fractal flame algorithm", 2003: affine maps, each followed by a
//! non-linear variation, iterated at random; brightness is the logarithm of the density.

use super::Sample;
use crate::elementary::{cos_turns, floor, log2, sin_turns};
use crate::random::Stream;

#[derive(Debug, Clone, Copy)]
enum Variation {
    Linear,
    Sinusoidal,
    Spherical,
    Swirl,
    Bent,
}

impl Variation {
    #[inline]
    fn apply(self, x: f32, y: f32) -> (f32, f32) {
        match self {
            Self::Linear => (x, y),
            Self::Sinusoidal => (sin_turns(0.25 * x), sin_turns(0.25 * y)),
            Self::Spherical => {
                let inverse = 1.0 / (x * x + y * y + 0.15);
                (x * inverse, y * inverse)
            }
            Self::Swirl => {
                let turns = 0.159 * (x * x + y * y).min(50.0);
                let (sin, cos) = (sin_turns(turns), cos_turns(turns));
                (x * sin - y * cos, x * cos + y * sin)
            }
            Self::Bent => (if x < 0.0 { -1.5 * x } else { x }, if y < 0.0 { -0.6 * y } else { y }),
        }
    }
}

struct Map {
    affine: [f32; 6],
    variation: Variation,
    tone: f32,
}

impl Map {
    fn sample(stream: &mut Stream) -> Self {
        // A contraction turned anywhere: singular values below 1 keep the orbit near the middle.
        let (turn, skew) = (stream.unit(), stream.unit());
        let (long, short) = (stream.range(0.4, 0.85), stream.range(0.2, 0.8));
        let (s1, c1, s2, c2) = (sin_turns(turn), cos_turns(turn), sin_turns(skew), cos_turns(skew));
        let affine = [
            c1 * long * c2 - s1 * short * s2,
            -c1 * long * s2 - s1 * short * c2,
            0.8 * stream.normal(),
            s1 * long * c2 + c1 * short * s2,
            -s1 * long * s2 + c1 * short * c2,
            0.8 * stream.normal(),
        ];
        let variation = match stream.weighted(&[0.4, 0.2, 0.15, 0.15, 0.1]) {
            0 => Variation::Linear,
            1 => Variation::Sinusoidal,
            2 => Variation::Spherical,
            3 => Variation::Swirl,
            _ => Variation::Bent,
        };
        Self { affine, variation, tone: stream.unit() }
    }

    #[inline]
    fn apply(&self, x: f32, y: f32) -> (f32, f32) {
        let [a, b, c, d, e, f] = self.affine;
        self.variation.apply(a * x + b * y + c, d * x + e * y + f)
    }
}

/// A square picture of an attractor, repeated by reflection every three units.
#[derive(Debug, Clone)]
pub(super) struct Attractor {
    side: usize,
    /// Brightness and tone.
    cells: Vec<[f32; 2]>,
    back: f32,
}

impl Attractor {
    /// Width of the picture in units of the plane.
    const WIDTH: f32 = 3.0;

    pub(super) fn sample(stream: &mut Stream, pixel: f32) -> Self {
        let maps: Vec<Map> = (0..2 + stream.below(4)).map(|_| Map::sample(stream)).collect();
        let back = stream.range(0.0, 0.35);
        let side = ((Self::WIDTH / pixel) as usize).clamp(16, 160);
        let mut density = vec![[0.0_f32; 2]; side * side];
        let (mut x, mut y, mut tone) = (0.1, 0.1, 0.5);
        let middle = 0.5 * side as f32;
        let zoom = middle / 2.2;
        for step in 0..3 * side * side {
            let map = &maps[stream.below(maps.len() as u32) as usize];
            (x, y) = map.apply(x, y);
            tone = 0.5 * (tone + map.tone);
            let (px, py) = (middle + zoom * x, middle + zoom * y);
            let inside = px >= 0.0 && py >= 0.0 && px < side as f32 && py < side as f32;
            if step > 20 && inside {
                let cell = &mut density[py as usize * side + px as usize];
                cell[0] += 1.0;
                cell[1] += tone;
            }
        }
        let peak = density.iter().fold(1.0_f32, |peak, cell| peak.max(cell[0]));
        let scale = 1.0 / log2(1.0 + peak);
        for cell in &mut density {
            let tone = if cell[0] > 0.0 { cell[1] / cell[0] } else { 0.5 };
            *cell = [log2(1.0 + cell[0]) * scale, 2.0 * tone - 1.0];
        }
        Self { side, cells: density, back }
    }

    #[inline]
    pub(super) fn at(&self, u: f32, v: f32) -> Sample {
        let (x, y) = (self.column(u), self.column(v));
        let (ix, iy) = (floor(x) as usize, floor(y) as usize);
        let (fx, fy) = (x - ix as f32, y - iy as f32);
        let at = iy * self.side + ix;
        let (a, b) = (self.cells[at], self.cells[at + 1]);
        let (c, d) = (self.cells[at + self.side], self.cells[at + self.side + 1]);
        let blend = |i: usize| {
            let top = a[i] + (b[i] - a[i]) * fx;
            let bottom = c[i] + (d[i] - c[i]) * fx;
            top + (bottom - top) * fy
        };
        let (light, tone) = (blend(0), blend(1));
        Sample { value: self.back + (1.0 - self.back) * light * (0.85 + 0.3 * tone), chroma: [tone, light - 0.4] }
    }

    /// Reflected position in cells, with room for a neighbour on the right.
    #[inline]
    fn column(&self, u: f32) -> f32 {
        let folded = super::super::elementary::fraction(u / (2.0 * Self::WIDTH) + 0.25);
        let position = 1.0 - (2.0 * folded - 1.0).abs();
        (position * (self.side - 1) as f32).min((self.side - 1) as f32 - 1e-3).max(0.0)
    }
}
