//! The search for the model that most pairs agree with, whatever the model is.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::{Pair, Undetermined};
use crate::matching::{Cancellation, Cancelled};

/// The chance that no sample was free of outliers, at which the search ends.
const MISS_PROBABILITY: f64 = 1e-3;
/// Samples are judged by this many pairs, drawn at random; the end result by all.
const MAX_JUDGES: usize = 1_000;
/// Local optimisation fits to pairs within these distances, in thresholds, one after the other.
const NARROWING: [f64; 4] = [3.0, 2.0, 1.4, 1.0];
/// Fits to all inliers, which are few once the inliers stay the same.
const MAX_FINAL_FITS: usize = 10;
const SEED: u64 = 0x00DE_5EC1;
/// Samples between two looks at whether anyone still waits.
const SAMPLES_PER_LOOK: usize = 64;

/// A geometry of two pictures.
pub(super) trait Model: Copy {
    /// Pairs that determine it, up to a few solutions.
    const SAMPLE: usize;
    /// Pairs below which none is looked for.
    const MIN_MATCHES: usize;
    /// Samples after which the search ends whatever it found.
    const MAX_SAMPLES: usize;

    /// All models that fit [`Self::SAMPLE`] pairs exactly; none if the pairs are degenerate.
    fn of_sample(sample: &[Pair]) -> Vec<Self>;
    /// The model that fits many pairs best, by weighted linear least squares.
    fn of_inliers(pairs: &[Weighted]) -> Option<Self>;
    /// The square of how far a pair is from the model, in thresholds.
    fn squared_distance(&self, pair: &Pair) -> f64;
}

/// A pair and how much it counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighted {
    pub(super) pair: Pair,
    pub(super) weight: f64,
}

/// A model, and for every pair whether it agrees.
#[derive(Clone, Debug)]
pub(super) struct Consensus<M> {
    pub(super) model: M,
    pub(super) inliers: Vec<bool>,
}

/// The model that most pairs agree with.
pub(super) fn find_consensus<M: Model>(
    pairs: &[Pair],
    cancellation: &Cancellation,
) -> Result<Result<Consensus<M>, Undetermined>, Cancelled> {
    if pairs.len() < M::MIN_MATCHES {
        return Ok(Err(Undetermined::TooFewMatches));
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let judges: Vec<Pair> =
        index::sample(&mut random, pairs.len(), pairs.len().min(MAX_JUDGES)).iter().map(|index| pairs[index]).collect();
    let Some(best) = search::<M>(pairs, &judges, &mut random, cancellation)? else {
        return Ok(Err(Undetermined::Degenerate));
    };
    let model = fitted_to_all(best.model, pairs);
    let inliers: Vec<bool> = pairs.iter().map(|pair| model.squared_distance(pair) <= 1.0).collect();
    let count = inliers.iter().filter(|inlier| **inlier).count();
    // A sample agrees with itself: without one more pair that is no consensus, unless there are no more.
    let least = M::MIN_MATCHES.max((M::SAMPLE + 1).min(pairs.len()));
    Ok(if count < least { Err(Undetermined::NoConsensus) } else { Ok(Consensus { model, inliers }) })
}

/// A model and what it costs.
#[derive(Clone, Copy)]
struct Candidate<M> {
    model: M,
    cost: f64,
}

fn search<M: Model>(
    pairs: &[Pair],
    judges: &[Pair],
    random: &mut ChaCha8Rng,
    cancellation: &Cancellation,
) -> Result<Option<Candidate<M>>, Cancelled> {
    let mut best: Option<Candidate<M>> = None;
    let mut enough = M::MAX_SAMPLES;
    let mut drawn = 0;
    while drawn < enough {
        if drawn % SAMPLES_PER_LOOK == 0 {
            cancellation.check()?;
        }
        drawn += 1;
        let sample: Vec<Pair> =
            index::sample(random, pairs.len(), M::SAMPLE).iter().map(|index| pairs[index]).collect();
        for model in M::of_sample(&sample) {
            let limit = best.map_or(f64::INFINITY, |best| best.cost);
            let cost = cost_below(limit, &model, judges);
            if cost < limit {
                let better = locally_optimised(Candidate { model, cost }, judges);
                enough = enough.min(samples_needed::<M>(&better.model, judges));
                best = Some(better);
            }
        }
    }
    Ok(best)
}

/// Tukey's biweight of a squared distance: 0 for a perfect match, 1 from the threshold on, and flat there, so that an
/// outlier that happens to be within the threshold hardly matters.
fn biweight_cost(squared_distance: f64) -> f64 {
    // Not a number is as bad as far away.
    if squared_distance < 1.0 { 1.0 - (1.0 - squared_distance).powi(3) } else { 1.0 }
}

/// The sum of the pairs' costs; as soon as it reaches `limit`, infinity.
fn cost_below<M: Model>(limit: f64, model: &M, pairs: &[Pair]) -> f64 {
    let mut cost = 0.0;
    for block in pairs.chunks(64) {
        cost += block.iter().map(|pair| biweight_cost(model.squared_distance(pair))).sum::<f64>();
        if cost >= limit {
            return f64::INFINITY;
        }
    }
    cost
}

/// Fits to ever closer pairs; the cheapest of what comes by.
fn locally_optimised<M: Model>(start: Candidate<M>, judges: &[Pair]) -> Candidate<M> {
    let (mut best, mut current) = (start, start.model);
    for distance in NARROWING {
        let Some(model) = M::of_inliers(&within(distance, &current, judges)) else { break };
        let cost = cost_below(best.cost, &model, judges);
        if cost < best.cost {
            best = Candidate { model, cost };
        }
        current = model;
    }
    best
}

/// Fits to all inliers until that does not help any more.
fn fitted_to_all<M: Model>(model: M, pairs: &[Pair]) -> M {
    let mut best = Candidate { model, cost: cost_below(f64::INFINITY, &model, pairs) };
    for _ in 0..MAX_FINAL_FITS {
        let Some(model) = M::of_inliers(&within(1.0, &best.model, pairs)) else { break };
        let cost = cost_below(best.cost, &model, pairs);
        if cost >= best.cost {
            break;
        }
        best = Candidate { model, cost };
    }
    best.model
}

/// The pairs within a distance, with the weights that make least squares minimise the biweight.
fn within<M: Model>(distance: f64, model: &M, pairs: &[Pair]) -> Vec<Weighted> {
    let weighted = pairs.iter().filter_map(|&pair| {
        let share = model.squared_distance(&pair) / (distance * distance);
        (share <= 1.0).then(|| Weighted { pair, weight: (1.0 - share).powi(2) })
    });
    weighted.collect()
}

/// Samples after which one without an outlier has very likely been among them.
fn samples_needed<M: Model>(model: &M, judges: &[Pair]) -> usize {
    let inliers = judges.iter().filter(|pair| model.squared_distance(pair) <= 1.0).count();
    let pure = (inliers as f64 / judges.len() as f64).powi(M::SAMPLE as i32);
    let needed = MISS_PROBABILITY.ln() / (-pure).ln_1p();
    // A share of 1 makes it 0, a share of 0 infinity.
    if needed.is_finite() { needed.ceil() as usize } else { M::MAX_SAMPLES }
}
