//! RANSAC with local optimisation, for any model.

use rand::SeedableRng;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::{PointPair, Undetermined};
use crate::matching::{Cancellation, Cancelled};

/// The search ends when the probability that no sample was free of outliers falls to this.
const MISS_PROBABILITY: f64 = 1e-3;
/// Models of samples are scored on at most this many pairs, drawn at random; the final model is fitted to all.
const MAX_SCORED_PAIRS: usize = 1_000;
/// Distances, in thresholds, within which the steps of local optimisation fit to pairs.
const LOCAL_RADII: [f64; 4] = [3.0, 2.0, 1.4, 1.0];
/// Largest number of final fits to all inliers. It usually takes few until the cost stops falling.
const MAX_FINAL_FITS: usize = 10;
const SEED: u64 = 0x00DE_5EC1;
/// Number of samples between two checks of the cancellation.
const SAMPLES_PER_CHECK: usize = 64;

/// A geometric model of two images.
pub(super) trait Model: Copy {
    /// Size of a minimal sample, which determines the model up to a few solutions.
    const SAMPLE: usize;
    /// Smallest number of pairs for which a model is estimated.
    const MIN_MATCHES: usize;
    /// Largest number of samples.
    const MAX_SAMPLES: usize;

    /// All models that fit [`Self::SAMPLE`] pairs exactly; none for a degenerate sample.
    fn from_sample(sample: &[PointPair]) -> Vec<Self>;
    /// The model that fits the pairs best, by weighted linear least squares.
    fn from_inliers(pairs: &[WeightedPair]) -> Option<Self>;
    /// The squared distance of a pair from the model, in thresholds.
    fn squared_distance(&self, pair: &PointPair) -> f64;
}

/// A pair and its weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct WeightedPair {
    pub(super) pair: PointPair,
    pub(super) weight: f64,
}

/// A model, and for every pair whether it is an inlier.
#[derive(Clone, Debug)]
pub(super) struct Consensus<M> {
    pub(super) model: M,
    pub(super) inliers: Vec<bool>,
}

/// Estimates the model that most pairs agree with.
pub(super) fn find_consensus<M: Model>(
    pairs: &[PointPair],
    cancellation: &Cancellation,
) -> Result<Result<Consensus<M>, Undetermined>, Cancelled> {
    if pairs.len() < M::MIN_MATCHES {
        return Ok(Err(Undetermined::TooFewMatches));
    }
    let mut random = ChaCha8Rng::seed_from_u64(SEED);
    let scored: Vec<PointPair> = index::sample(&mut random, pairs.len(), pairs.len().min(MAX_SCORED_PAIRS))
        .iter()
        .map(|index| pairs[index])
        .collect();
    let Some(best) = search::<M>(pairs, &scored, &mut random, cancellation)? else {
        return Ok(Err(Undetermined::Degenerate));
    };
    let model = fitted_to_all(best.model, pairs);
    let inliers: Vec<bool> = pairs.iter().map(|pair| model.squared_distance(pair) <= 1.0).collect();
    let count = inliers.iter().filter(|inlier| **inlier).count();
    // A sample always agrees with its own model, so a consensus needs one more pair, unless there are no more.
    let least = M::MIN_MATCHES.max((M::SAMPLE + 1).min(pairs.len()));
    Ok(if count < least { Err(Undetermined::NoConsensus) } else { Ok(Consensus { model, inliers }) })
}

/// A model and its cost on the scored pairs.
#[derive(Clone, Copy)]
struct ScoredModel<M> {
    model: M,
    cost: f64,
}

/// Draws samples and returns the model with the lowest cost.
fn search<M: Model>(
    pairs: &[PointPair],
    scored: &[PointPair],
    random: &mut ChaCha8Rng,
    cancellation: &Cancellation,
) -> Result<Option<ScoredModel<M>>, Cancelled> {
    let mut best: Option<ScoredModel<M>> = None;
    let mut enough = M::MAX_SAMPLES;
    let mut drawn = 0;
    while drawn < enough {
        if drawn % SAMPLES_PER_CHECK == 0 {
            cancellation.check()?;
        }
        drawn += 1;
        let sample: Vec<PointPair> =
            index::sample(random, pairs.len(), M::SAMPLE).iter().map(|index| pairs[index]).collect();
        for model in M::from_sample(&sample) {
            let limit = best.map_or(f64::INFINITY, |best| best.cost);
            let cost = cost_below(limit, &model, scored);
            if cost < limit {
                let better = locally_optimised(ScoredModel { model, cost }, scored);
                enough = enough.min(samples_needed::<M>(&better.model, scored));
                best = Some(better);
            }
        }
    }
    Ok(best)
}

/// Tukey's biweight of a squared distance: 0 at distance 0, 1 from the threshold on, and nearly flat just below it, so that
/// a chance match within the threshold has little effect.
fn biweight_cost(squared_distance: f64) -> f64 {
    // NaN fails the comparison and costs 1.
    if squared_distance < 1.0 { 1.0 - (1.0 - squared_distance).powi(3) } else { 1.0 }
}

/// The sum of the pairs' costs, or infinity as soon as it reaches `limit`.
fn cost_below<M: Model>(limit: f64, model: &M, pairs: &[PointPair]) -> f64 {
    let mut cost = 0.0;
    for block in pairs.chunks(64) {
        cost += block.iter().map(|pair| biweight_cost(model.squared_distance(pair))).sum::<f64>();
        if cost >= limit {
            return f64::INFINITY;
        }
    }
    cost
}

/// Fits to the pairs within smaller and smaller radii, and returns the model with the lowest cost.
fn locally_optimised<M: Model>(start: ScoredModel<M>, scored: &[PointPair]) -> ScoredModel<M> {
    let (mut best, mut current) = (start, start.model);
    for distance in LOCAL_RADII {
        let Some(model) = M::from_inliers(&within(distance, &current, scored)) else { break };
        let cost = cost_below(best.cost, &model, scored);
        if cost < best.cost {
            best = ScoredModel { model, cost };
        }
        current = model;
    }
    best
}

/// Fits to all inliers until the cost stops falling.
fn fitted_to_all<M: Model>(model: M, pairs: &[PointPair]) -> M {
    let mut best = ScoredModel { model, cost: cost_below(f64::INFINITY, &model, pairs) };
    for _ in 0..MAX_FINAL_FITS {
        let Some(model) = M::from_inliers(&within(1.0, &best.model, pairs)) else { break };
        let cost = cost_below(best.cost, &model, pairs);
        if cost >= best.cost {
            break;
        }
        best = ScoredModel { model, cost };
    }
    best.model
}

/// The pairs within a distance, with the weights with which iterated least squares minimises the biweight.
fn within<M: Model>(distance: f64, model: &M, pairs: &[PointPair]) -> Vec<WeightedPair> {
    let weighted = pairs.iter().filter_map(|&pair| {
        let share = model.squared_distance(&pair) / (distance * distance);
        (share <= 1.0).then(|| WeightedPair { pair, weight: (1.0 - share).powi(2) })
    });
    weighted.collect()
}

/// The number of samples after which one without outliers was drawn with probability `1 − MISS_PROBABILITY` (Hartley and
/// Zisserman, equation 4.18).
fn samples_needed<M: Model>(model: &M, scored: &[PointPair]) -> usize {
    let inliers = scored.iter().filter(|pair| model.squared_distance(pair) <= 1.0).count();
    let pure = (inliers as f64 / scored.len() as f64).powi(M::SAMPLE as i32);
    let needed = MISS_PROBABILITY.ln() / (-pure).ln_1p();
    // With an inlier share of 1 it is 0, with a share of 0 infinity.
    if needed.is_finite() { needed.ceil() as usize } else { M::MAX_SAMPLES }
}
