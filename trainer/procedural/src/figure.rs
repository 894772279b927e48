//! Figures that belong to a category: ten families of outlines that a trained eye can tell apart
//! whatever their texture, colour, size and turn.
//!
//! Forms lie in the unit disc. Distances are those of `shape`: negative inside, and close to exact
//! near the border.

use crate::elementary::{angle_turns, cos_turns, fraction, sin_turns};
use crate::random::Stream;

/// Category of a figure, which its outline alone determines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Category {
    /// Round to oval.
    Ellipse,
    /// Four right angles.
    Rectangle,
    /// Three sides.
    Triangle,
    /// Four to six points.
    Star,
    /// A disc with a round hole.
    Ring,
    /// Two bars across each other.
    Cross,
    /// A disc less another.
    Crescent,
    /// Five to eight round petals.
    Flower,
    /// A shaft and a head.
    Arrow,
    /// A rectangle with a rectangular hole.
    Frame,
}

impl Category {
    /// Every category, in the order of their numbers from 1 on; 0 is the background.
    pub(crate) const ALL: [Self; 10] = [
        Self::Ellipse,
        Self::Rectangle,
        Self::Triangle,
        Self::Star,
        Self::Ring,
        Self::Cross,
        Self::Crescent,
        Self::Flower,
        Self::Arrow,
        Self::Frame,
    ];

    /// The category's number in label maps, from 1 on.
    pub(crate) fn number(self) -> u8 {
        self as u8 + 1
    }

    /// The category's name in annotations.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ellipse => "ellipse",
            Self::Rectangle => "rectangle",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Ring => "ring",
            Self::Cross => "cross",
            Self::Crescent => "crescent",
            Self::Flower => "flower",
            Self::Arrow => "arrow",
            Self::Frame => "frame",
        }
    }

    /// Draws a category; all are equally likely.
    pub(crate) fn sample(stream: &mut Stream) -> Self {
        Self::ALL[stream.below(Self::ALL.len() as u32) as usize]
    }
}

/// One member of a category.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    Ellipse { aspect: f32 },
    Rectangle { half: [f32; 2] },
    Triangle { reach: [f32; 3] },
    Star { points: f32, tip: [f32; 2], notch: [f32; 2] },
    Ring { middle: f32, thickness: f32 },
    Cross { reach: f32, half_width: f32 },
    Crescent { away: f32, bite: f32 },
    Flower { petals: f32, depth: f32 },
    Arrow { half_width: f32, neck: f32, head: [f32; 2] },
    Frame { half: [f32; 2], thickness: f32 },
}

impl Form {
    /// A random member of this category.
    pub(crate) fn sample(category: Category, stream: &mut Stream) -> Self {
        match category {
            Category::Ellipse => Self::Ellipse { aspect: stream.range(0.5, 1.0) },
            Category::Rectangle => Self::Rectangle { half: half_sides(stream) },
            // With each reach up to a half, no corner leaves the unit disc.
            Category::Triangle => Self::Triangle { reach: [0.5, stream.range(0.35, 0.5), stream.range(0.35, 0.5)] },
            Category::Star => Self::star((4 + stream.below(3)) as f32, stream.range(0.35, 0.5)),
            Category::Ring => {
                let thickness = stream.range(0.12, 0.26);
                Self::Ring { middle: 1.0 - thickness, thickness }
            }
            Category::Cross => Self::Cross { reach: 0.95, half_width: stream.range(0.16, 0.3) },
            Category::Crescent => {
                let away = stream.range(0.3, 0.55);
                Self::Crescent { away, bite: stream.range(0.75, 0.9) }
            }
            Category::Flower => Self::Flower { petals: (5 + stream.below(4)) as f32, depth: stream.range(0.2, 0.3) },
            Category::Arrow => Self::arrow(stream),
            Category::Frame => {
                let half = half_sides(stream);
                Self::Frame { half, thickness: half[1] * stream.range(0.3, 0.5) }
            }
        }
    }

    fn star(points: f32, inner: f32) -> Self {
        let half = 0.5 / points;
        let notch = [inner * cos_turns(half), inner * sin_turns(half)];
        Self::Star { points, tip: [1.0, 0.0], notch }
    }

    fn arrow(stream: &mut Stream) -> Self {
        let half_width = stream.range(0.1, 0.2);
        let neck = stream.range(0.0, 0.3);
        // From the neck to the tip at 1, and as wide as the unit disc lets it be there.
        let widest = (1.0 - neck * neck).sqrt().min(0.85);
        Self::Arrow { half_width, neck, head: [1.0 - neck, stream.range(0.6, 1.0) * widest] }
    }

    /// Signed distance of `(x, y)` to the border.
    #[inline]
    pub(crate) fn distance(&self, x: f32, y: f32) -> f32 {
        let reach = (x * x + y * y).sqrt();
        match self {
            Self::Ellipse { aspect } => {
                let scaled = y / aspect;
                let length = (x * x + scaled * scaled).sqrt();
                let steep = scaled / aspect;
                length * (length - 1.0) / (x * x + steep * steep).sqrt().max(1e-6)
            }
            Self::Rectangle { half } => rectangle(x, y, *half),
            Self::Triangle { reach: [a, b, c] } => {
                // Outward normals a third of a turn apart.
                let (cos, sin) = (-0.5, 0.866_025_4);
                (x - a).max(cos * x + sin * y - b).max(cos * x - sin * y - c)
            }
            Self::Star { points, tip, notch } => {
                let turns = fraction(angle_turns(x, y) * points + 0.5) - 0.5;
                let folded = turns.abs() / points;
                let (px, py) = (reach * cos_turns(folded) - notch[0], reach * sin_turns(folded) - notch[1]);
                let (ex, ey) = (tip[0] - notch[0], tip[1] - notch[1]);
                (ex * py - ey * px) / (ex * ex + ey * ey).sqrt()
            }
            Self::Ring { middle, thickness } => (reach - middle).abs() - thickness,
            Self::Cross { reach, half_width } => {
                rectangle(x, y, [*reach, *half_width]).min(rectangle(x, y, [*half_width, *reach]))
            }
            Self::Crescent { away, bite } => {
                let dx = x - away;
                (reach - 1.0).max(bite - (dx * dx + y * y).sqrt())
            }
            Self::Flower { petals, depth } => {
                let turns = petals * angle_turns(x, y);
                let border = 1.0 - depth + depth * cos_turns(turns);
                // The border leans where it runs outwards, which shortens the way to it.
                let slope = depth * petals * sin_turns(turns);
                let lean = slope / border.max(0.2);
                (reach - border) / (1.0 + lean * lean).sqrt()
            }
            Self::Arrow { half_width, neck, head: [length, half] } => {
                let middle = 0.5 * (*neck - 0.95);
                let shaft = rectangle(x - middle, y, [neck - middle, *half_width]);
                let slope = half / length;
                let side = (y.abs() + slope * (x - 1.0)) / (1.0 + slope * slope).sqrt();
                shaft.min(side.max(neck - x))
            }
            Self::Frame { half, thickness } => {
                let inner = [half[0] - thickness, half[1] - thickness];
                rectangle(x, y, *half).max(-rectangle(x, y, inner))
            }
        }
    }
}

/// Half the sides of a rectangle that fills the unit disc, up to about twice as long as high.
fn half_sides(stream: &mut Stream) -> [f32; 2] {
    let turns = stream.range(0.07, 0.125);
    [0.98 * cos_turns(turns), 0.98 * sin_turns(turns)]
}

#[inline]
fn rectangle(x: f32, y: f32, half: [f32; 2]) -> f32 {
    let (dx, dy) = (x.abs() - half[0], y.abs() - half[1]);
    let (ox, oy) = (dx.max(0.0), dy.max(0.0));
    (ox * ox + oy * oy).sqrt() + dx.max(dy).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    fn forms() -> Vec<(Category, Form)> {
        let mut stream = Stream::new(Purpose::Figures, 0, 0);
        let members = (0..30).flat_map(|_| Category::ALL);
        members.map(|category| (category, Form::sample(category, &mut stream))).collect()
    }

    /// Points of a grid over the square around the unit disc.
    fn grid(side: u16) -> impl Iterator<Item = (f32, f32)> {
        let place = move |i: u16| f32::from(i) / f32::from(side - 1) * 2.4 - 1.2;
        (0..side * side).map(move |i| (place(i % side), place(i / side)))
    }

    #[test]
    fn numbers_and_names_are_unique() {
        for (index, category) in Category::ALL.iter().enumerate() {
            assert_eq!(usize::from(category.number()), index + 1);
            assert!(Category::ALL[..index].iter().all(|other| other.name() != category.name()));
        }
    }

    #[test]
    fn forms_fill_a_part_of_the_unit_disc_and_nothing_else() {
        for (category, form) in forms() {
            let (mut inside, mut farthest) = (0, 0.0_f32);
            for (x, y) in grid(81) {
                if form.distance(x, y) < 0.0 {
                    inside += 1;
                    farthest = farthest.max(x.hypot(y));
                }
            }
            assert!((0.85..1.02).contains(&farthest), "{category:?}: {farthest}");
            // The disc holds some 3,500 points of the grid.
            assert!((350..3_600).contains(&inside), "{category:?}: {inside}");
        }
    }

    #[test]
    fn distances_change_as_fast_as_the_way_near_the_border() {
        for (category, form) in forms() {
            let slopes: Vec<f32> = grid(121)
                .filter(|&(x, y)| form.distance(x, y).abs() < 0.02)
                .map(|(x, y)| {
                    let step = 1e-3;
                    let dx = form.distance(x + step, y) - form.distance(x - step, y);
                    let dy = form.distance(x, y + step) - form.distance(x, y - step);
                    dx.hypot(dy) / (2.0 * step)
                })
                .collect();
            let good = slopes.iter().filter(|slope| (0.7..1.35).contains(*slope)).count();
            assert!(good * 10 >= slopes.len() * 9, "{category:?}: {good} of {}", slopes.len());
        }
    }
}
