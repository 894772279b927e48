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
/// Largest number of pairs that are looked at, drawn at random.
const MAX_PAIRS: usize = 1_000;
/// Lines through two points that are tried. The line of half of all points, of many, is missed with a probability below 1e-24.
const MAX_LINES: usize = 200;
/// Most sets of pairs that may be expected to agree as well as one that counts, if all pairs are chance matches.
const MAX_FALSE_ALARMS: f64 = 1e-3;
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

/// A pair, and whether it agrees with a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct JudgedPair {
    pub(super) pair: PointPair,
    pub(super) agrees: bool,
}

/// Pairs that share no place with one another, in neither image, so that each is evidence of its own.
#[derive(Clone, Debug)]
pub(super) struct SeparatePairs(Vec<JudgedPair>);

impl SeparatePairs {
    /// Takes pairs in random order, each whose points are away from those of the pairs taken before it.
    pub(super) fn among(pairs: &[JudgedPair]) -> Self {
        let mut taken: Vec<JudgedPair> = Vec::new();
        // Every second pair of a grid may be one column of it.
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let drawn = index::sample(&mut random, pairs.len(), pairs.len().min(MAX_PAIRS));
        for judged in drawn.iter().map(|at| &pairs[at]) {
            let shares_place = |other: &JudgedPair| {
                distance(judged.pair.source, other.pair.source) <= SAME_PLACE
                    || distance(judged.pair.target, other.pair.target) <= SAME_PLACE
            };
            if !taken.iter().any(shares_place) {
                taken.push(*judged);
            }
        }
        Self(taken)
    }

    pub(super) fn agreement(&self) -> Agreement {
        Agreement::count(self.0.iter())
    }

    /// The line of each image that most pairs that agree are on.
    pub(super) fn best_lines(&self) -> BestLines {
        let agreeing = self.agreeing();
        BestLines { source: best_line(&agreeing, |pair| pair.source), target: best_line(&agreeing, |pair| pair.target) }
    }

    /// The agreement of the pairs off the best line of the source, and of those off that of the target.
    pub(super) fn off_lines(&self, lines: &BestLines) -> [Agreement; 2] {
        [
            self.agreement_off(|pair| lines.source.distance(pair.source) <= ON_LINE),
            self.agreement_off(|pair| lines.target.distance(pair.target) <= ON_LINE),
        ]
    }

    /// The agreement of the pairs that are not on a line in both images: on the best line of the source, and on that line of
    /// the target which is best for the pairs there.
    pub(super) fn off_line_of_both(&self, BestLines { source, .. }: &BestLines) -> Agreement {
        let mut agreeing = self.agreeing();
        agreeing.retain(|pair| source.distance(pair.source) <= ON_LINE);
        let target = best_line(&agreeing, |pair| pair.target);
        self.agreement_off(|pair| source.distance(pair.source) <= ON_LINE && target.distance(pair.target) <= ON_LINE)
    }

    fn agreeing(&self) -> Vec<PointPair> {
        self.0.iter().filter(|judged| judged.agrees).map(|judged| judged.pair).collect()
    }

    fn agreement_off(&self, is_on: impl Fn(&PointPair) -> bool) -> Agreement {
        Agreement::count(self.0.iter().filter(|judged| !is_on(&judged.pair)))
    }
}

/// How many of some pairs agree with a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreement {
    pub(super) pairs: usize,
    pub(super) agreeing: usize,
}

impl Agreement {
    pub(super) fn of(pairs: &[JudgedPair]) -> Self {
        Self::count(pairs.iter())
    }

    fn count<'a>(pairs: impl Iterator<Item = &'a JudgedPair>) -> Self {
        pairs.fold(Self { pairs: 0, agreeing: 0 }, |Self { pairs, agreeing }, judged| Self {
            pairs: pairs + 1,
            agreeing: agreeing + usize::from(judged.agrees),
        })
    }

    /// Tells whether so many pairs would hardly agree by chance, where one does with probability `chance`, and the model is
    /// fitted to `fitted` of them.
    ///
    /// It is the number of false alarms of Moisan and Stival, *A Probabilistic Criterion to Detect Rigid Point Matches
    /// Between Two Images*, 2004 (ε-meaningful sets), without its factor for the choice of the threshold, which is given here.
    /// Where all pairs agree, there is no chance in which of them do.
    pub(super) fn is_meaningful(self, fitted: usize, chance: f64) -> bool {
        let Self { pairs, agreeing } = self;
        if agreeing < fitted || agreeing == pairs {
            return agreeing >= fitted;
        }
        let further = (agreeing - fitted) as f64;
        let false_alarms =
            ln_binomial(pairs, agreeing) + ln_binomial(agreeing, fitted) + further * chance.min(1.0).ln();
        false_alarms < MAX_FALSE_ALARMS.ln()
    }
}

/// The natural logarithm of `n` over `k`.
fn ln_binomial(n: usize, k: usize) -> f64 {
    (1..=k).map(|i| ((n - k + i) as f64 / i as f64).ln()).sum()
}

/// A line of each image.
pub(super) struct BestLines {
    source: Line,
    target: Line,
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

/// The line of one image that most pairs are on, by RANSAC.
fn best_line(pairs: &[PointPair], end: impl Fn(&PointPair) -> [f64; 2]) -> Line {
    let near = |line: &Line, most: f64| -> Vec<[f64; 2]> {
        pairs.iter().map(&end).filter(|&point| line.distance(point) <= most).collect()
    };
    let (mut best, mut most) = (Line::fit(&[]), 0);
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    for _ in 0..MAX_LINES {
        if most == pairs.len() {
            break;
        }
        let two: Vec<[f64; 2]> =
            index::sample(&mut random, pairs.len(), pairs.len().min(2)).iter().map(|at| end(&pairs[at])).collect();
        let line = Line::fit(&near(&Line::fit(&two), 2.0 * ON_LINE));
        let on_line = near(&line, ON_LINE).len();
        if on_line > most {
            (best, most) = (line, on_line);
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

    fn judged(pairs: &[PointPair]) -> Vec<JudgedPair> {
        pairs.iter().map(|&pair| JudgedPair { pair, agrees: true }).collect()
    }

    #[test]
    fn chance_is_told_from_agreement() {
        let is_meaningful = |agreeing, pairs| Agreement { pairs, agreeing }.is_meaningful(8, 0.05);
        // A model that is fitted to 8 of 100 pairs has 5 of the others by chance, and the best of many models some more.
        assert!(!is_meaningful(13, 100) && !is_meaningful(20, 100) && is_meaningful(40, 100));
        assert!(is_meaningful(8, 8) && !is_meaningful(8, 9) && !is_meaningful(7, 7));
        assert!((ln_binomial(10, 3) - 120_f64.ln()).abs() < 1e-12);
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
        let count = |pairs: &[PointPair]| SeparatePairs::among(&judged(pairs)).agreement().pairs;
        assert_eq!(count(&targets_in_one_place), 1);
        let apart: Vec<_> = (0..9).map(|i| pair([5.0 * f64::from(i), 0.0], [0.0, 7.0 * f64::from(i)])).collect();
        assert_eq!(count(&apart), 9);
        assert_eq!(count(&[]), 0);
    }

    #[test]
    fn a_line_is_found_whatever_is_off_it() {
        let wobble = |i: i32| 0.5 * f64::from(i % 3 - 1);
        let mut pairs: Vec<_> =
            (0..30).map(|i| pair([3.0 * f64::from(i), wobble(i)], [wobble(i), 4.0 * f64::from(i)])).collect();
        let off_lines = |pairs: &[PointPair]| {
            let separate = SeparatePairs(judged(pairs));
            let lines = separate.best_lines();
            let [source, target] = separate.off_lines(&lines);
            [source, target, separate.off_line_of_both(&lines)].map(|off| off.pairs)
        };
        assert_eq!(off_lines(&pairs), [0, 0, 0]);
        pairs.push(pair([40.0, 60.0], [50.0, 30.0]));
        pairs.push(pair([20.0, 0.0], [70.0, 10.0]));
        assert_eq!(off_lines(&pairs), [1, 2, 2]);
    }
}
