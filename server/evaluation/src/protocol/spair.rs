//! The protocol of SPair-71k (Min et al., *SPair-71k*, 2019, section 4): keypoints of the source are matched with the
//! target, and a match is correct within a share α of the longer side of the target's bounding box (PCK@α).

use super::{EvaluationError, EvaluationOptions, MethodRunner, curve_sample, errors_px, misses};
use crate::dataset::{DatasetError, KeypointPair};
use crate::feature_method::DescribedPicture;
use crate::metrics::share_below;
use crate::pair_result::{Curve, PairIllustration, PairResult, Score, Unit, selection};
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::matching::{Cancellation, ImagePair, Queries, find_correspondences};

const ALPHAS: [f64; 2] = [0.05, 0.1];
/// The α that papers report.
const SHOWN_ALPHA: f64 = 0.1;
static PCK: Curve = Curve {
    id: "pck_box",
    label: "keypoints found",
    axis: "share of the box's longer side",
    thresholds: &[0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2],
};

pub(super) fn measure(
    pair: &KeypointPair,
    runner: &mut MethodRunner<'_>,
    options: &EvaluationOptions,
) -> Result<PairResult, EvaluationError> {
    let source = runner.describe(&pair.source)?;
    let target = runner.describe(&pair.target)?;
    let sources = pair.keypoints.iter().map(|(source, _)| *source).collect();
    let points = ImagePoints::new(sources, source.size()).map_err(|error| DatasetError::Contradiction {
        path: pair.source.clone(),
        reason: format!("of `{}`, {error}", pair.name),
    })?;
    let images = ImagePair { source: source.matched_image(), target: target.matched_image() };
    let never = Cancellation::default();
    let matches = runner
        .timed(|| find_correspondences(images, Queries::Points(&points), &options.match_options(), &never))
        .map_err(|source| EvaluationError::Match { picture: pair.target.clone(), source })?;
    let truth = |query: usize| -> Option<PixelPoint> { pair.keypoints.get(query).map(|(_, target)| *target) };
    let found = misses(&matches, &|found| truth(found.query));
    Ok(pair_result(pair, &found, &source, &target))
}

fn pair_result(
    pair: &KeypointPair,
    found: &[crate::pair_result::MeasuredMatch],
    source: &DescribedPicture,
    target: &DescribedPicture,
) -> PairResult {
    let errors = errors_px(found);
    let mut scores = vec![Score::new("keypoints", "keypoints a pair", Unit::Count, errors.len() as f64)];
    for alpha in ALPHAS {
        let Some(share) = share_below(&errors, alpha * pair.target_box_px) else { continue };
        let score = |kind: &str| {
            Score::new(format!("pck_{kind}_{alpha}"), format!("PCK@{alpha} per {kind}"), Unit::Share, share)
        };
        scores.extend([score("image"), score("point").weighted(errors.len() as f64)]);
    }
    PairResult {
        name: pair.name.clone(),
        sequence: pair.name.clone(),
        group: Some(pair.category.clone()),
        scores,
        curves: vec![curve_sample(&PCK, &errors, pair.target_box_px)],
        illustration: PairIllustration {
            source: pair.source.clone(),
            target: pair.target.clone(),
            sizes: [source.size(), target.size()],
            within_px: SHOWN_ALPHA * pair.target_box_px,
            matches: selection(found),
            mask: None,
        },
    }
}
