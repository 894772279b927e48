//! The pairs that are evidence of a geometry, and whether they lie on a line.
//!
//! Many pairs can agree with a model and still say little: the same pair several times, many source points in one place of
//! the target, or points on one line.

use std::collections::HashMap;

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::PointPair;

/// Places that are not farther apart than this, in thresholds, are one: agreement does not tell them apart.
const SAME_PLACE: f64 = 1.0;
/// Points up to this distance, in thresholds, from a line are on it.
const ON_LINE: f64 = 1.0;
/// Largest number of pairs that are looked at; of more, every second one, every third one, and so on.
const MAX_PAIRS: usize = 1_000;
/// Lines through two points that are tried. The line of half of all points is missed with a probability below 1e-24.
const MAX_LINES: usize = 200;
const SEED: u64 = 0x11_4E5;

/// The different ones among pairs, and for every pair its index among them.
pub(super) fn distinct(pairs: &[PointPair]) -> (Vec<PointPair>, Vec<usize>) {
    let mut known: HashMap<[u64; 4], usize> = HashMap::new();
    let mut found = Vec::new();
    let indices = pairs.iter().map(|pair| {
        let PointPair { source: [x, y], target: [u, v] } = *pair;
        *known.entry([x, y, u, v].map(f64::to_bits)).or_insert_with(|| {
            found.push(*pair);
            found.len() - 1
        })
    });
    let indices = indices.collect();
    (found, indices)
}

/// Pairs that share no place with one another, in neither image.
#[derive(Clone, Debug)]
pub(super) struct Witnesses(Vec<PointPair>);

impl Witnesses {
    /// Takes every pair whose points are away from those of the pairs taken before it.
    pub(super) fn among(pairs: &[PointPair]) -> Self {
        let mut taken: Vec<PointPair> = Vec::new();
        for pair in pairs.iter().step_by(pairs.len().div_ceil(MAX_PAIRS).max(1)) {
            let shares_place = |other: &PointPair| {
                distance(pair.source, other.source) <= SAME_PLACE || distance(pair.target, other.target) <= SAME_PLACE
            };
            if !taken.iter().any(shares_place) {
                taken.push(*pair);
            }
        }
        Self(taken)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The numbers of pairs off the lines that most of them are on.
    pub(super) fn off_lines(&self) -> OffLines {
        let on_source = on_best_line(&self.0, |pair| pair.source);
        let on_target = on_best_line(&self.0, |pair| pair.target);
        let on_both = on_best_line(&on_source, |pair| pair.target);
        let off = |on_line: &[PointPair]| self.count() - on_line.len();
        OffLines { source: off(&on_source), target: off(&on_target), both: off(&on_both) }
    }
}

/// Numbers of pairs off a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OffLines {
    /// Off a line of the source.
    pub(super) source: usize,
    /// Off a line of the target.
    pub(super) target: usize,
    /// Off a line of the source that is a line of the target, too.
    pub(super) both: usize,
}

/// A line of an image.
struct Line {
    point: [f64; 2],
    /// Of length 1.
    direction: [f64; 2],
}

impl Line {
    /// The line that fits the points best.
    fn fit(points: &[[f64; 2]]) -> Self {
        let count = points.len() as f64;
        let mean = points.iter().fold([0.0; 2], |[x, y], point| [x + point[0] / count, y + point[1] / count]);
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for &[x, y] in points {
            let (x, y) = (x - mean[0], y - mean[1]);
            (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
        }
        // The direction of the largest variance.
        let (sine, cosine) = (0.5 * (2.0 * xy).atan2(xx - yy)).sin_cos();
        Self { point: mean, direction: [cosine, sine] }
    }

    fn distance(&self, [x, y]: [f64; 2]) -> f64 {
        ((y - self.point[1]) * self.direction[0] - (x - self.point[0]) * self.direction[1]).abs()
    }
}

/// The pairs whose points in one image are on the line that most of them are on, by RANSAC.
fn on_best_line(pairs: &[PointPair], end: impl Fn(&PointPair) -> [f64; 2]) -> Vec<PointPair> {
    let near = |line: &Line, most: f64| -> Vec<PointPair> {
        pairs.iter().filter(|pair| line.distance(end(pair)) <= most).copied().collect()
    };
    let points = |pairs: &[PointPair]| -> Vec<[f64; 2]> { pairs.iter().map(&end).collect() };
    let mut best = Vec::new();
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for _ in 0..MAX_LINES {
        if best.len() == pairs.len() {
            break;
        }
        let two: Vec<[f64; 2]> =
            index::sample(&mut random, pairs.len(), pairs.len().min(2)).iter().map(|at| end(&pairs[at])).collect();
        let around = near(&Line::fit(&two), 2.0 * ON_LINE);
        let on_line = near(&Line::fit(&points(&around)), ON_LINE);
        if on_line.len() > best.len() {
            best = on_line;
        }
    }
    best
}

fn distance(one: [f64; 2], other: [f64; 2]) -> f64 {
    (one[0] - other[0]).hypot(one[1] - other[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(source: [f64; 2], target: [f64; 2]) -> PointPair {
        PointPair { source, target }
    }

    #[test]
    fn equal_pairs_are_one() {
        let (a, b) = (pair([0.0, 1.0], [2.0, 3.0]), pair([0.0, 1.0], [2.0, 3.5]));
        assert_eq!(distinct(&[a, b, a, a]), (vec![a, b], vec![0, 1, 0, 0]));
    }

    #[test]
    fn a_place_of_either_image_counts_once() {
        let targets_in_one_place: Vec<_> =
            (0..9).map(|i| pair([5.0 * f64::from(i), 0.0], [0.1 * f64::from(i), 0.0])).collect();
        assert_eq!(Witnesses::among(&targets_in_one_place).count(), 1);
        let apart: Vec<_> = (0..9).map(|i| pair([5.0 * f64::from(i), 0.0], [0.0, 7.0 * f64::from(i)])).collect();
        assert_eq!(Witnesses::among(&apart).count(), 9);
        assert_eq!(Witnesses::among(&[]).count(), 0);
    }

    #[test]
    fn a_line_is_found_whatever_is_off_it() {
        let wobble = |i: i32| 0.5 * f64::from(i % 3 - 1);
        let mut pairs: Vec<_> =
            (0..30).map(|i| pair([3.0 * f64::from(i), wobble(i)], [wobble(i), 4.0 * f64::from(i)])).collect();
        assert_eq!(Witnesses(pairs.clone()).off_lines(), OffLines { source: 0, target: 0, both: 0 });
        pairs.push(pair([40.0, 60.0], [50.0, 30.0]));
        pairs.push(pair([20.0, 0.0], [70.0, 10.0]));
        assert_eq!(Witnesses(pairs).off_lines(), OffLines { source: 1, target: 2, both: 2 });
    }
}
