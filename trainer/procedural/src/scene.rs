//! Parts of an image: leaves from front to back, and the light on them.
//!
//! The dead-leaves model (A. B. Lee, D. Mumford and J. Huang 2001): opaque shapes with a density of
//! radii proportional to 1/r³ cover each other, which gives the power-law spectra, edges and
//! occlusions of photographs. Two more layouts add what it lacks: objects of several parts in front
//! of a ground and a sky, and close views of one surface.

use crate::Split;
use crate::colour::Palette;
use crate::elementary::{cos_turns, sin_turns};
use crate::figure::Category;
use crate::random::{Purpose, Stream};
use crate::shape::Outline;
use crate::surface::{Choice, Surface};

/// Places tried for a figure.
const PLACEMENTS: usize = 12;

/// One shape with its surface, as light falls on it.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) outline: Outline,
    pub(crate) surface: Surface,
    /// Leaves of one object share their instance; 0 is the background.
    pub(crate) instance: u16,
    /// Width of the edge in image units, on top of one pixel.
    pub(crate) softness: f32,
    /// Change of brightness per radius along x and y.
    pub(crate) gradient: [f32; 2],
    /// Darkening at the border, as on a round body.
    pub(crate) rim: f32,
    pub(crate) shadow: Option<Shadow>,
}

/// A figure as it lies in a scene.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) category: Category,
    pub(crate) outline: Outline,
}

/// A shadow on whatever lies behind.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shadow {
    pub(crate) offset: [f32; 2],
    /// Share of the light that is kept out, in `[0, 1]`.
    pub(crate) depth: f32,
    /// Width of its soft border in image units.
    pub(crate) width: f32,
}

/// Leaves that are still to come, by kind.
#[derive(Debug, Clone, Copy)]
enum RemainingLeaves {
    /// Leaves until nothing is left to cover.
    Leaves { smallest: f32, left: u32 },
    /// Small things, objects of parts, then large things.
    Objects { clutter: u32, objects: u32, large: u32, horizon: bool },
    /// Figures of a category, then things that are of none.
    Figures { figures: u32, clutter: u32, large: u32, horizon: bool },
}

/// An endless source of leaves from front to back, then a background.
#[derive(Debug)]
pub(crate) struct Scene {
    stream: Stream,
    split: Split,
    palette: Palette,
    /// Width and height in image units.
    extent: [f32; 2],
    remaining: RemainingLeaves,
    light: [f32; 2],
    shadows: f32,
    mixing: f32,
    instance: u16,
    /// Parts of the current object still to come, around its middle.
    parts: Vec<([f32; 2], f32)>,
    part_palette: Option<Palette>,
    /// `true` if the last leaf was part of an object.
    in_object: bool,
    figures: Vec<Figure>,
}

impl Scene {
    /// The scene of one image, `extent` image units wide and high.
    pub(crate) fn new(split: Split, seed: u64, index: u64, extent: [f32; 2]) -> Self {
        let stream = Stream::new(Purpose::Scene, seed, split.key(index));
        let area = extent[0] * extent[1];
        let some = |low: u32, range: u32, stream: &mut Stream| ((low + stream.below(range)) as f32 * area) as u32;
        Self::laid_out(split, stream, extent, |stream| match stream.weighted(&[0.5, 0.38, 0.12]) {
            0 => RemainingLeaves::Leaves { smallest: stream.log_range(0.03, 0.14), left: (400.0 * area) as u32 },
            1 => RemainingLeaves::Objects {
                clutter: some(0, 10, stream),
                objects: some(2, 7, stream).max(1),
                large: some(0, 4, stream),
                horizon: stream.chance(0.7),
            },
            _ => RemainingLeaves::Objects {
                clutter: some(0, 5, stream),
                objects: 0,
                large: some(0, 3, stream),
                horizon: false,
            },
        })
    }

    /// A scene with `objects` objects of parts, for a sequence of pictures.
    pub(crate) fn with_objects(split: Split, seed: u64, index: u64, extent: [f32; 2], objects: u32) -> Self {
        let stream = Stream::new(Purpose::Stage, seed, split.key(index));
        Self::laid_out(split, stream, extent, |stream| RemainingLeaves::Objects {
            clutter: stream.below(5),
            objects,
            large: 1 + stream.below(4),
            horizon: stream.chance(0.7),
        })
    }

    /// A scene with figures in front of a backdrop that shows none.
    pub(crate) fn with_figures(split: Split, seed: u64, index: u64, extent: [f32; 2]) -> Self {
        let stream = Stream::new(Purpose::Figures, seed, split.key(index));
        Self::laid_out(split, stream, extent, |stream| RemainingLeaves::Figures {
            figures: 1 + stream.weighted(&[0.2, 0.2, 0.18, 0.15, 0.12, 0.08, 0.07]) as u32,
            clutter: stream.below(6),
            large: stream.below(4),
            horizon: stream.chance(0.7),
        })
    }

    fn laid_out(
        split: Split,
        mut stream: Stream,
        extent: [f32; 2],
        remaining: impl FnOnce(&mut Stream) -> RemainingLeaves,
    ) -> Self {
        let palette = Palette::sample(&mut stream);
        let turns = stream.range(-0.35, -0.15);
        let strength = stream.range(0.0, 0.35);
        let remaining = remaining(&mut stream);
        Self {
            split,
            palette,
            extent,
            remaining,
            light: [strength * cos_turns(turns), strength * sin_turns(turns)],
            shadows: if stream.chance(0.75) { stream.range(0.2, 0.9) } else { 0.0 },
            mixing: if stream.chance(0.4) { stream.range(0.1, 0.5) } else { 0.0 },
            instance: 0,
            parts: Vec::new(),
            part_palette: None,
            in_object: false,
            figures: Vec::new(),
            stream,
        }
    }

    /// The next leaf towards the back; `None` when only the background is left.
    pub(crate) fn next_leaf(&mut self) -> Option<Leaf> {
        if let Some((centre, radius)) = self.parts.pop() {
            return Some(self.leaf(centre, radius));
        }
        match self.remaining {
            RemainingLeaves::Leaves { smallest, left } => {
                let left = left.checked_sub(1)?;
                self.remaining = RemainingLeaves::Leaves { smallest, left };
                let radius = cubic_radius(smallest, 1.0, &mut self.stream);
                Some(self.single(radius))
            }
            RemainingLeaves::Objects { clutter, objects, large, horizon } => {
                self.next_object(clutter, objects, large, horizon)
            }
            RemainingLeaves::Figures { figures, clutter, large, horizon } => {
                self.next_figure(figures, clutter, large, horizon)
            }
        }
    }

    /// Returns whether the last leaf is part of an object that may move.
    pub(crate) fn in_object(&self) -> bool {
        self.in_object
    }

    /// The figures so far; figure `i` is instance `i + 1`.
    pub(crate) fn figures(&self) -> &[Figure] {
        &self.figures
    }

    fn next_object(&mut self, clutter: u32, objects: u32, large: u32, horizon: bool) -> Option<Leaf> {
        if clutter > 0 {
            self.remaining = RemainingLeaves::Objects { clutter: clutter - 1, objects, large, horizon };
            let radius = self.stream.log_range(0.03, 0.12);
            Some(self.single(radius))
        } else if objects > 0 {
            self.remaining = RemainingLeaves::Objects { clutter, objects: objects - 1, large, horizon };
            Some(self.first_part())
        } else if large > 0 {
            self.remaining = RemainingLeaves::Objects { clutter, objects, large: large - 1, horizon };
            let radius = self.stream.range(0.35, 0.9);
            Some(self.single(radius))
        } else if horizon {
            self.remaining = RemainingLeaves::Objects { clutter, objects, large, horizon: false };
            Some(self.ground())
        } else {
            None
        }
    }

    fn next_figure(&mut self, figures: u32, clutter: u32, large: u32, horizon: bool) -> Option<Leaf> {
        if figures > 0 {
            self.remaining = RemainingLeaves::Figures { figures: figures - 1, clutter, large, horizon };
            return Some(self.figure());
        }
        self.part_palette = None;
        let mut leaf = if clutter > 0 {
            self.remaining = RemainingLeaves::Figures { figures, clutter: clutter - 1, large, horizon };
            let radius = self.stream.log_range(0.03, 0.15);
            self.irregular(radius)
        } else if large > 0 {
            self.remaining = RemainingLeaves::Figures { figures, clutter, large: large - 1, horizon };
            let radius = self.stream.range(0.35, 0.9);
            self.irregular(radius)
        } else if horizon {
            self.remaining = RemainingLeaves::Figures { figures, clutter, large, horizon: false };
            self.ground()
        } else {
            return None;
        };
        leaf.instance = 0;
        Some(leaf)
    }

    /// A figure where it hides little of those in front, if a few attempts find such a place.
    fn figure(&mut self) -> Leaf {
        self.instance = self.instance.saturating_add(1);
        let stream = &mut self.stream;
        let category = Category::sample(stream);
        let radius = stream.log_range(0.08, 0.4);
        self.part_palette = stream.chance(0.7).then(|| Palette::sample(stream));
        let mut centre = self.anywhere(-0.4 * radius);
        for _ in 0..PLACEMENTS {
            let crowded =
                |other: &Figure| other.outline.distance_from_centre(centre) < 0.7 * (other.outline.radius() + radius);
            if !self.figures.iter().any(crowded) {
                break;
            }
            centre = self.anywhere(-0.4 * radius);
        }
        let outline = Outline::figure(category, centre, radius, &mut self.stream);
        self.figures.push(Figure { category, outline: outline.clone() });
        // A soft edge would leave it open where the figure ends.
        Leaf { softness: 0.0, ..self.dressed(outline) }
    }

    /// A leaf of no category.
    fn irregular(&mut self, radius: f32) -> Leaf {
        let centre = self.anywhere(radius);
        let outline = Outline::irregular(centre, radius, &mut self.stream);
        self.dressed(outline)
    }

    /// Surface that shows where no leaf is.
    pub(crate) fn background(&mut self) -> Surface {
        self.surface(0.6, 0.45)
    }

    /// A leaf that is an instance of its own.
    fn single(&mut self, radius: f32) -> Leaf {
        self.in_object = false;
        self.instance = self.instance.saturating_add(1);
        self.part_palette = None;
        let centre = self.anywhere(radius);
        self.leaf(centre, radius)
    }

    /// Plans an object of one to five parts and gives the foremost.
    fn first_part(&mut self) -> Leaf {
        self.in_object = true;
        self.instance = self.instance.saturating_add(1);
        let stream = &mut self.stream;
        let radius = stream.log_range(0.1, 0.42);
        self.part_palette = stream.chance(0.6).then(|| Palette::sample(stream));
        let count = stream.weighted(&[0.3, 0.25, 0.2, 0.15, 0.1]);
        let centre = self.anywhere(0.3 * radius);
        // The body is the hindmost, so it is planned first and popped last.
        self.parts.push((centre, radius));
        for _ in 0..count {
            let stream = &mut self.stream;
            let (turns, away) = (stream.unit(), radius * stream.range(0.0, 0.75));
            let middle = [centre[0] + away * cos_turns(turns), centre[1] + away * sin_turns(turns)];
            let size = radius * stream.log_range(0.15, 0.6);
            self.parts.push((middle, size));
        }
        let (centre, radius) = self.parts.pop().unwrap_or((centre, radius));
        self.leaf(centre, radius)
    }

    fn ground(&mut self) -> Leaf {
        self.in_object = false;
        self.instance = self.instance.saturating_add(1);
        self.part_palette = None;
        let stream = &mut self.stream;
        let point = [0.5 * self.extent[0], stream.range(0.25, 0.8) * self.extent[1]];
        let turns = 0.012 * stream.normal();
        let reach = 1.5 * self.extent[0].max(self.extent[1]);
        let outline = Outline::ground(point, reach, turns, stream);
        let surface = self.surface(0.6, 0.35);
        let softness = self.stream.unit() * 0.01;
        let gradient = [0.0, self.stream.range(-0.3, 0.5)];
        let instance = self.instance;
        Leaf { outline, surface, instance, softness, gradient, rim: 0.0, shadow: None }
    }

    fn leaf(&mut self, centre: [f32; 2], radius: f32) -> Leaf {
        let outline = Outline::sample(centre, radius, &mut self.stream);
        self.dressed(outline)
    }

    /// A leaf of this outline with a random surface and light.
    fn dressed(&mut self, outline: Outline) -> Leaf {
        let radius = outline.radius();
        let surface = self.surface(radius, 0.5 * self.mixing);
        let stream = &mut self.stream;
        let bulge = stream.range(-0.1, 1.3);
        let rim = if stream.chance(0.4) { stream.range(0.1, 0.5) } else { 0.0 };
        let softness = if stream.chance(0.25) { stream.log_range(0.003, 0.03) } else { 0.0 };
        let shadow = stream.chance(self.shadows).then(|| {
            let far = radius.min(0.3) * stream.range(0.05, 0.3);
            let norm = (self.light[0] * self.light[0] + self.light[1] * self.light[1]).sqrt().max(1e-3);
            Shadow {
                offset: [-far * self.light[0] / norm, -far * self.light[1] / norm],
                depth: stream.range(0.15, 0.65),
                width: stream.range(0.3, 1.6) * far,
            }
        });
        Leaf {
            outline,
            surface,
            instance: self.instance,
            softness: softness.min(0.3 * radius),
            gradient: [bulge * self.light[0], bulge * self.light[1]],
            rim,
            shadow,
        }
    }

    fn surface(&mut self, extent: f32, mixing: f32) -> Surface {
        let palette = self.part_palette.as_ref().unwrap_or(&self.palette);
        let choice = Choice { split: self.split, palette, extent, mixing };
        Surface::sample(&choice, &mut self.stream)
    }

    /// A place on the image or up to `reach` outside of it.
    fn anywhere(&mut self, reach: f32) -> [f32; 2] {
        let reach = reach.min(1.0);
        self.extent.map(|length| self.stream.range(-reach, length + reach))
    }
}

/// A radius with density proportional to 1/r³ between two bounds.
fn cubic_radius(low: f32, high: f32, stream: &mut Stream) -> f32 {
    let (a, b) = (1.0 / (low * low), 1.0 / (high * high));
    1.0 / (a + (b - a) * stream.unit()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn radii_follow_the_power_law() {
        let mut stream = Stream::new(Purpose::Scene, 1, 1);
        let n = 50_000;
        let radii: Vec<f32> = (0..n).map(|_| cubic_radius(0.03, 1.0, &mut stream)).collect();
        assert!(radii.iter().all(|r| (0.0299..=1.001).contains(r)));
        // P(r > 2a) is a quarter of P(r > a), but for the upper bound.
        let above = |limit: f32| radii.iter().filter(|r| **r > limit).count() as f32;
        let ratio = above(0.06) / above(0.12);
        assert!((3.7..4.5).contains(&ratio), "{ratio}");
    }

    #[test]
    fn scenes_end_and_repeat() {
        for index in 0..40 {
            let describe = || {
                let mut scene = Scene::new(Split::Train, 9, index, [1.0, 1.0]);
                let mut count = 0;
                let mut places = Vec::new();
                while let Some(leaf) = scene.next_leaf() {
                    count += 1;
                    assert!(count < 2_000);
                    places.push((leaf.outline.bounds(0.0), leaf.instance));
                }
                format!("{places:?}{:?}", scene.background())
            };
            assert_eq!(describe(), describe());
        }
    }
}
