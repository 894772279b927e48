//! Outlines of leaves as approximate signed distances.
//!
//! A shape lives in its own frame, inside the unit disc; [`Outline`] places it, turns it and lets
//! noise roughen it. Distances are negative inside and exact enough near the border for an
//! antialiased edge a few pixels wide.

use crate::elementary::{cos_turns, sin_turns};
use crate::figure::{Category, Form};
use crate::lattice::Lattice;
use crate::random::Stream;

const MAX_SIDES: usize = 8;
const MAX_DISCS: usize = 5;

#[derive(Debug, Clone)]
enum Shape {
    Ellipse {
        aspect: f32,
    },
    Rectangle {
        half: [f32; 2],
        corner: f32,
    },
    /// Convex: outward normals and offsets. A far corner may leave the unit disc; the outline's box
    /// then cuts it off, which makes one more side.
    Polygon {
        sides: [[f32; 3]; MAX_SIDES],
    },
    /// A radius that varies with direction.
    Blob {
        depth: f32,
        frequency: f32,
        offset: f32,
    },
    /// A union of discs: bushes, clouds, bunches.
    Cluster {
        discs: [[f32; 3]; MAX_DISCS],
    },
    /// A bent bar with round ends.
    Stroke {
        thickness: f32,
        bend: f32,
    },
    Ring {
        middle: f32,
        thickness: f32,
    },
    Figure(Form),
}

impl Shape {
    fn sample(stream: &mut Stream) -> Self {
        match stream.weighted(&[0.22, 0.2, 0.16, 0.17, 0.1, 0.11, 0.04]) {
            0 => Self::Ellipse { aspect: stream.range(0.4, 1.0) },
            1 => {
                let turns = stream.range(0.03, 0.125);
                let half = [0.98 * cos_turns(turns), 0.98 * sin_turns(turns)];
                Self::Rectangle { half, corner: stream.unit() * stream.unit() * half[1] * 0.8 }
            }
            2 => Self::polygon(stream),
            3 => Self::Blob {
                depth: stream.range(0.15, 0.6),
                frequency: stream.range(0.6, 2.2),
                offset: stream.range(0.0, 128.0),
            },
            4 => Self::cluster(stream),
            5 => Self::Stroke { thickness: stream.log_range(0.05, 0.3), bend: stream.range(-0.6, 0.6) },
            _ => {
                let thickness = stream.range(0.08, 0.25);
                Self::Ring { middle: 1.0 - thickness, thickness }
            }
        }
    }

    fn polygon(stream: &mut Stream) -> Self {
        let count = 3 + stream.below(MAX_SIDES as u32 - 2) as usize;
        let mut sides = [[0.0; 3]; MAX_SIDES];
        for (index, side) in sides.iter_mut().enumerate() {
            // The unused places repeat the first sides, which changes nothing.
            if index < count {
                let turns = (index as f32 + 0.6 * (stream.unit() - 0.5)) / count as f32;
                let reach = if count == 3 { stream.range(0.35, 0.5) } else { stream.range(0.5, 0.8) };
                *side = [cos_turns(turns), sin_turns(turns), reach];
            }
        }
        for index in count..MAX_SIDES {
            sides[index] = sides[index - count];
        }
        Self::Polygon { sides }
    }

    fn cluster(stream: &mut Stream) -> Self {
        let discs = std::array::from_fn(|index| {
            let (turns, away) = (stream.unit(), stream.range(0.2, 0.6));
            let away = if index == 0 { 0.1 } else { away };
            let radius = stream.range(0.5, 0.98) * (1.0 - away);
            [away * cos_turns(turns), away * sin_turns(turns), radius]
        });
        Self::Cluster { discs }
    }

    #[inline]
    fn distance(&self, lattice: Lattice, x: f32, y: f32) -> f32 {
        match self {
            Self::Ellipse { aspect } => {
                let scaled = y / aspect;
                let reach = (x * x + scaled * scaled).sqrt();
                let steep = scaled / aspect;
                let slope = (x * x + steep * steep).sqrt().max(1e-6);
                reach * (reach - 1.0) / slope
            }
            Self::Rectangle { half, corner } => {
                let dx = x.abs() - half[0] + corner;
                let dy = y.abs() - half[1] + corner;
                let (ox, oy) = (dx.max(0.0), dy.max(0.0));
                (ox * ox + oy * oy).sqrt() + dx.max(dy).min(0.0) - corner
            }
            Self::Polygon { sides } => {
                sides.iter().fold(-9.0_f32, |far, [nx, ny, reach]| far.max(nx * x + ny * y - reach))
            }
            Self::Blob { depth, frequency, offset } => {
                let reach = (x * x + y * y).sqrt();
                let turn = frequency / reach.max(1e-6);
                let noise = lattice.noise(x * turn + offset, y * turn + 0.5 * offset);
                reach - (1.0 - depth * (0.5 + 0.5 * noise)).min(1.0)
            }
            Self::Cluster { discs } => discs.iter().fold(9.0_f32, |near, [cx, cy, radius]| {
                let (dx, dy) = (x - cx, y - cy);
                near.min((dx * dx + dy * dy).sqrt() - radius)
            }),
            Self::Stroke { thickness, bend } => {
                let half = 0.9 - thickness;
                let along = x.clamp(-half, half);
                let dx = x - along;
                let dy = y - bend * (along * along - 0.4);
                (dx * dx + dy * dy).sqrt() - thickness * (1.0 - 0.5 * along)
            }
            Self::Ring { middle, thickness } => ((x * x + y * y).sqrt() - middle).abs() - thickness,
            Self::Figure(form) => form.distance(x, y),
        }
    }
}

/// A shape at its place in the scene. Lengths are in image units.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    shape: Shape,
    centre: [f32; 2],
    radius: f32,
    turn: [f32; 2],
    roughness: f32,
    rough_frequency: f32,
    lattice: Lattice,
}

/// A point in the coordinates of an outline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RelativePoint {
    /// Offset from the centre in radii, not turned.
    pub(crate) offset: [f32; 2],
    /// Signed distance to the border in radii, negative inside.
    pub(crate) distance: f32,
}

impl Outline {
    /// A random shape of this size at this place.
    pub(crate) fn sample(centre: [f32; 2], radius: f32, stream: &mut Stream) -> Self {
        let shape = Shape::sample(stream);
        // Half of all long things stand upright or lie flat, as under gravity.
        let turns =
            if stream.chance(0.4) { 0.25 * stream.below(4) as f32 + 0.015 * stream.normal() } else { stream.unit() };
        let roughness = if stream.chance(0.4) { stream.log_range(0.02, 0.16) } else { 0.0 };
        let rough_frequency = stream.log_range(1.2, 5.0);
        Self::placed(shape, centre, radius, turns).roughened(roughness, rough_frequency)
    }

    /// A figure of this category, turned anyhow and all but smooth.
    pub(crate) fn figure(category: Category, centre: [f32; 2], radius: f32, stream: &mut Stream) -> Self {
        let form = Form::sample(category, stream);
        let turns = stream.unit();
        let roughness = if stream.chance(0.3) { stream.log_range(0.01, 0.03) } else { 0.0 };
        let frequency = stream.log_range(1.2, 5.0);
        Self::placed(Shape::Figure(form), centre, radius, turns).roughened(roughness, frequency)
    }

    /// A shape that no category could be mistaken for: a ragged blob or a bent stroke.
    pub(crate) fn irregular(centre: [f32; 2], radius: f32, stream: &mut Stream) -> Self {
        let shape = if stream.chance(0.75) {
            let (depth, frequency) = (stream.range(0.5, 0.8), stream.range(0.8, 1.6));
            Shape::Blob { depth, frequency, offset: stream.range(0.0, 128.0) }
        } else {
            Shape::Stroke { thickness: stream.log_range(0.05, 0.2), bend: stream.range(0.3, 0.7) }
        };
        let turns = stream.unit();
        let roughness = stream.log_range(0.06, 0.16);
        Self::placed(shape, centre, radius, turns).roughened(roughness, stream.log_range(1.2, 2.2))
    }

    /// Everything below a horizon through `point`, sloping by `turns`.
    pub(crate) fn ground(point: [f32; 2], reach: f32, turns: f32, stream: &mut Stream) -> Self {
        let down = [-sin_turns(turns), cos_turns(turns)];
        let centre = [point[0] + down[0] * reach, point[1] + down[1] * reach];
        let shape = Shape::Rectangle { half: [1.9, 1.0], corner: 0.0 };
        let roughness = stream.log_range(0.004, 0.08);
        Self::placed(shape, centre, reach, turns).roughened(roughness, stream.log_range(2.0, 9.0))
    }

    fn placed(shape: Shape, centre: [f32; 2], radius: f32, turns: f32) -> Self {
        let turn = [cos_turns(turns), sin_turns(turns)];
        let lattice = Lattice::new();
        Self { shape, centre, radius, turn, roughness: 0.0, rough_frequency: 1.0, lattice }
    }

    fn roughened(mut self, roughness: f32, frequency: f32) -> Self {
        self.roughness = roughness;
        self.rough_frequency = frequency;
        self
    }

    /// This outline moved by `offset`.
    pub(crate) fn moved(&self, offset: [f32; 2]) -> Self {
        let mut copy = self.clone();
        copy.centre = [self.centre[0] + offset[0], self.centre[1] + offset[1]];
        copy
    }

    /// The middle of the disc that holds the shape.
    pub(crate) fn centre(&self) -> [f32; 2] {
        self.centre
    }

    /// Distance of `(x, y)` from the middle.
    pub(crate) fn distance_from_centre(&self, [x, y]: [f32; 2]) -> f32 {
        let (dx, dy) = (x - self.centre[0], y - self.centre[1]);
        (dx * dx + dy * dy).sqrt()
    }

    /// Radius of the disc that holds the shape.
    pub(crate) fn radius(&self) -> f32 {
        self.radius
    }

    /// Left, top, right and bottom of a box that holds the outline and a margin around it.
    pub(crate) fn bounds(&self, margin: f32) -> [f32; 4] {
        let (half_x, half_y) = match &self.shape {
            Shape::Rectangle { half, .. } => {
                let (c, s) = (self.turn[0].abs(), self.turn[1].abs());
                (half[0] * c + half[1] * s, half[0] * s + half[1] * c)
            }
            _ => (1.0, 1.0),
        };
        let x = self.radius * (half_x + 1.3 * self.roughness) + margin;
        let y = self.radius * (half_y + 1.3 * self.roughness) + margin;
        [self.centre[0] - x, self.centre[1] - y, self.centre[0] + x, self.centre[1] + y]
    }

    /// `(x, y)` in the outline's coordinates.
    #[inline]
    pub(crate) fn locate(&self, x: f32, y: f32) -> RelativePoint {
        let inverse = 1.0 / self.radius;
        let (dx, dy) = ((x - self.centre[0]) * inverse, (y - self.centre[1]) * inverse);
        let mut lx = self.turn[0] * dx + self.turn[1] * dy;
        let mut ly = self.turn[0] * dy - self.turn[1] * dx;
        if self.roughness > 0.0 {
            let (nx, ny) = (self.rough_frequency * lx + self.centre[0] * 31.0, self.rough_frequency * ly);
            let bend = self.lattice.noise(nx, ny) + 0.5 * self.lattice.noise(2.3 * ny + 7.7, 2.3 * nx);
            lx += self.roughness * bend;
            ly += self.roughness * self.lattice.noise(ny + 40.5, nx + 20.2);
        }
        let distance = self.shape.distance(self.lattice, lx, ly);
        RelativePoint { offset: [dx, dy], distance }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn shapes_stay_inside_their_bounds() {
        let mut stream = Stream::new(Purpose::Scene, 11, 0);
        for _ in 0..300 {
            let radius = stream.log_range(0.05, 1.0);
            let outline = Outline::sample([0.3, -0.2], radius, &mut stream);
            if matches!(outline.shape, Shape::Polygon { .. }) {
                continue;
            }
            let [left, top, right, bottom] = outline.bounds(0.0);
            for step in 0..64_u8 {
                let t = f32::from(step) / 63.0;
                let (x, y) = (left + t * (right - left), top + t * (bottom - top));
                for (px, py) in [(x, top), (x, bottom), (left, y), (right, y)] {
                    assert!(outline.locate(px, py).distance > -0.06, "{outline:?}");
                }
            }
        }
    }

    #[test]
    fn every_shape_has_an_inside() {
        let mut stream = Stream::new(Purpose::Scene, 12, 0);
        for _ in 0..300 {
            let outline = Outline::sample([0.0, 0.0], 1.0, &mut stream);
            let inside = (0..1024_u16).filter(|i| {
                let (x, y) = (f32::from(i % 32) / 15.5 - 1.0, f32::from(i / 32) / 15.5 - 1.0);
                outline.locate(x, y).distance < 0.0
            });
            assert!(inside.count() > 8, "{outline:?}");
        }
    }
}
