//! Texture programs: seeded functions from the plane to a brightness and a tint.
//!
//! A program is wholly given by its id. Its plane is scaled so that its main features are about one
//! unit wide; colours come from the leaf that wears it (`colour::Ramp`), so a program is a structure
//! and not a palette. Programs know the size of a pixel and leave out what is finer.
//!
//! Invariants: the ids of the two [`Split`]s are disjoint, and some families are never trained on.

mod attractor;
mod cellular;
mod fractal_noise;
mod interference;
mod labyrinth;
mod masonry;
mod network;
mod oriented;
mod spots;
mod strokes;
mod veins;
mod warped_noise;

use self::attractor::Attractor;
use self::cellular::Cellular;
use self::fractal_noise::FractalNoise;
use self::interference::Interference;
use self::labyrinth::Labyrinth;
use self::masonry::Masonry;
use self::network::Network;
use self::oriented::Oriented;
use self::spots::Spots;
use self::strokes::Strokes;
use self::veins::Veins;
use self::warped_noise::WarpedNoise;
use super::Split;
use super::random::{Purpose, Stream};

/// Values of a program at one point.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sample {
    /// Position on the leaf's colour ramp; `[0, 1]`, clamped where it is used.
    pub(super) value: f32,
    /// Deviations in tint, about ±1: warm against cool, green against magenta.
    pub(super) chroma: [f32; 2],
}

/// Programs that training draws from.
const TRAIN_PROGRAMS: u32 = 1 << 20;
/// Programs kept for evaluation.
const HELD_OUT_PROGRAMS: u32 = 1 << 16;
/// Share of held-out programs whose family training never sees.
const UNSEEN_FAMILY_SHARE: f32 = 0.35;

/// Names one texture program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ProgramId(u32);

impl ProgramId {
    /// A program of one split, uniformly.
    pub(super) fn sample(split: Split, stream: &mut Stream) -> Self {
        match split {
            Split::Train => Self(stream.below(TRAIN_PROGRAMS)),
            Split::HeldOut => Self(TRAIN_PROGRAMS + stream.below(HELD_OUT_PROGRAMS)),
        }
    }

    /// The split that may use this program.
    fn split(self) -> Split {
        if self.0 < TRAIN_PROGRAMS { Split::Train } else { Split::HeldOut }
    }
}

/// A program with its parameters drawn.
#[derive(Debug, Clone)]
pub(super) struct Program(Family);

#[derive(Debug, Clone)]
enum Family {
    FractalNoise(FractalNoise),
    WarpedNoise(WarpedNoise),
    Oriented(Oriented),
    Masonry(Masonry),
    Cellular(Cellular),
    Attractor(Attractor),
    Network(Box<Network>),
    Veins(Veins),
    Strokes(Strokes),
    Spots(Spots),
    Labyrinth(Labyrinth),
    Interference(Interference),
}

/// Weights of the families that both splits use, in the order of [`Family`]. Noises lead because
/// most of a photograph's surface is rough and not patterned.
const SHARED_FAMILIES: [f32; 10] = [0.22, 0.14, 0.10, 0.08, 0.11, 0.05, 0.09, 0.08, 0.08, 0.05];

impl Program {
    /// The program of this name, for pixels `pixel` units of its plane wide.
    pub(super) fn new(id: ProgramId, pixel: f32) -> Self {
        Self(Family::new(id, pixel))
    }

    /// Evaluates the program at each point of `points`.
    pub(super) fn fill(&self, points: &[[f32; 2]], samples: &mut [Sample]) {
        match &self.0 {
            Family::FractalNoise(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::WarpedNoise(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Oriented(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Masonry(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Cellular(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Attractor(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Network(program) => program.fill(points, samples),
            Family::Veins(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Strokes(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Spots(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Labyrinth(program) => each(points, samples, |u, v| program.at(u, v)),
            Family::Interference(program) => each(points, samples, |u, v| program.at(u, v)),
        }
    }
}

impl Family {
    fn new(id: ProgramId, pixel: f32) -> Self {
        let stream = &mut Stream::new(Purpose::Program, u64::from(id.0), 0);
        if id.split() == Split::HeldOut && stream.chance(UNSEEN_FAMILY_SHARE) {
            return if stream.chance(0.5) {
                Self::Labyrinth(Labyrinth::sample(stream, pixel))
            } else {
                Self::Interference(Interference::sample(stream, pixel))
            };
        }
        match stream.weighted(&SHARED_FAMILIES) {
            0 => Self::FractalNoise(FractalNoise::sample(stream, pixel)),
            1 => Self::WarpedNoise(WarpedNoise::sample(stream, pixel)),
            2 => Self::Oriented(Oriented::sample(stream, pixel)),
            3 => Self::Masonry(Masonry::sample(stream, pixel)),
            4 => Self::Cellular(Cellular::sample(stream, pixel)),
            5 => Self::Attractor(Attractor::sample(stream, pixel)),
            6 => Self::Network(Box::new(Network::sample(stream))),
            7 => Self::Veins(Veins::sample(stream, pixel)),
            8 => Self::Strokes(Strokes::sample(stream, pixel)),
            _ => Self::Spots(Spots::sample(stream, pixel)),
        }
    }
}

/// One family's inner loop, compiled apart from the others.
#[inline]
fn each(points: &[[f32; 2]], samples: &mut [Sample], at: impl Fn(f32, f32) -> Sample) {
    for (sample, &[u, v]) in samples.iter_mut().zip(points) {
        *sample = at(u, v);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn splits_share_no_program() {
        let mut stream = Stream::new(Purpose::Scene, 5, 0);
        for _ in 0..20_000 {
            let train = ProgramId::sample(Split::Train, &mut stream);
            let held_out = ProgramId::sample(Split::HeldOut, &mut stream);
            assert_eq!(train.split(), Split::Train);
            assert_eq!(held_out.split(), Split::HeldOut);
            assert!(train < held_out);
        }
    }

    /// Bit patterns of a program's values on a small grid.
    fn fingerprint(id: ProgramId) -> Vec<u32> {
        let points: Vec<[f32; 2]> = (0..9_u8).map(|i| [f32::from(i % 3) * 0.83, f32::from(i / 3) * 0.71]).collect();
        let mut samples = vec![Sample::default(); points.len()];
        Program::new(id, 0.1).fill(&points, &mut samples);
        assert!(samples.iter().all(|s| s.value.is_finite() && s.chroma.iter().all(|c| c.is_finite())));
        samples.iter().map(|sample| sample.value.to_bits()).collect()
    }

    #[test]
    fn more_than_ten_thousand_programs_differ() {
        let distinct: BTreeSet<_> = (0..11_000).map(|id| fingerprint(ProgramId(id))).collect();
        assert!(distinct.len() >= 10_000, "{}", distinct.len());
    }

    /// Brightness of a program on a tile of 12 × 12 pixels, in 8 bits.
    fn tile(family: Family) -> Vec<u8> {
        let at = |i: u8| f32::from(i) * 0.61;
        let points: Vec<[f32; 2]> = (0..144_u8).map(|i| [at(i % 12), at(i / 12)]).collect();
        let mut samples = vec![Sample::default(); points.len()];
        Program(family).fill(&points, &mut samples);
        samples.iter().map(|sample| (sample.value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8).collect()
    }

    #[test]
    fn ten_thousand_programs_of_each_family_render_different_tiles() {
        const PROGRAMS: usize = 10_000;
        let mut tiles: Vec<(_, BTreeSet<Vec<u8>>, usize)> = Vec::new();
        for id in 0..TRAIN_PROGRAMS + HELD_OUT_PROGRAMS {
            // From the training programs no more than the rarest family needs.
            if id > 22 * PROGRAMS as u32 && id < TRAIN_PROGRAMS {
                continue;
            }
            let family = Family::new(ProgramId(id), 0.61);
            let kind = std::mem::discriminant(&family);
            let at = tiles.iter().position(|(known, ..)| *known == kind).unwrap_or_else(|| {
                tiles.push((kind, BTreeSet::new(), 0));
                tiles.len() - 1
            });
            if tiles[at].2 < PROGRAMS {
                tiles[at].1.insert(tile(family));
                tiles[at].2 += 1;
            }
        }
        assert_eq!(tiles.len(), SHARED_FAMILIES.len() + 2);
        for (kind, distinct, count) in tiles {
            assert_eq!(count, PROGRAMS, "{kind:?}");
            // Some attractors are so small that they hardly meet a point of the tile.
            assert!(distinct.len() >= PROGRAMS - 5, "{kind:?}: {}", distinct.len());
        }
    }

    #[test]
    fn every_family_is_drawn_and_some_are_held_out_only() {
        let families = |first: u32| -> BTreeSet<String> {
            (first..first + 400)
                .map(|id| format!("{:?}", Family::new(ProgramId(id), 0.2)))
                .filter_map(|text| text.split('(').next().map(str::to_owned))
                .collect()
        };
        let train = families(0);
        let held_out = families(TRAIN_PROGRAMS);
        assert_eq!(train.len(), SHARED_FAMILIES.len());
        assert_eq!(held_out.difference(&train).count(), 2);
    }
}
