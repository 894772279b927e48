//! The protocol for scenes with moving objects: matches of points of the first frame with each later one, detection of
//! hidden points, and propagation of masks.
//!
//! Points are on a regular grid of whole pixels, for which the files hold exact positions. Masks are propagated in two ways:
//! frame by frame, the usual evaluation on DAVIS ([`MaskPropagator`]), and from the first frame alone, as
//! `/correspondence` with a mask does.

use std::sync::Arc;

use super::mask_propagator::MaskPropagator;
use super::{EvaluationError, EvaluationOptions, MethodRunner, curve_sample, errors_px, inside, misses, pck_scores};
use crate::dataset::{DatasetError, GroundTruth, Scene, SceneFrame};
use crate::feature_method::DescribedPicture;
use crate::metrics::{
    BoundaryTolerance, MaskPair, area_under_roc, average_precision, boundary_f, mean, median, region_similarity,
};
use crate::pair_result::{Curve, MeasuredMatch, PairIllustration, PairResult, PropagatedMask, Score, Unit, selection};
use densecl_vision::features::{ImagePoints, PixelPoint};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::{Cancellation, ImagePair, PointMatch, Queries, find_correspondences, propagate_labels};

/// Errors below this share of the longer side are drawn as right.
const SHOWN_WITHIN_SIDE: f64 = 0.05;
static PCK: Curve = Curve {
    id: "pck_px",
    label: "seen points found",
    axis: "pixels",
    thresholds: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0, 18.0, 20.0],
};

pub(super) fn measure(
    scene: &Scene,
    runner: &mut MethodRunner<'_>,
    options: &EvaluationOptions,
    take: &mut dyn FnMut(PairResult),
) -> Result<(), EvaluationError> {
    let first = runner.describe(&scene.first.picture)?;
    let size = first.size();
    let labels = scene.first.read_mask(size)?;
    let points = pixel_grid(size, options.grid_points);
    let mut propagator = MaskPropagator::new(&first, &labels);
    for (frame, truth) in &scene.later {
        let target = describe_frame(runner, frame, size)?;
        let pair = FramePair { first: &first, target: &target, frame };
        let (mut scores, found) = pair.match_points(&points, &truth.read(size)?, runner, options)?;
        let truth = frame.read_mask(size)?;
        let propagated = propagator.propagate_to(&target);
        let alone = propagate_labels(pair.images(), &labels, &Cancellation::default()).map_err(|e| pair.failed(e))?;
        let objects = Objects::new(&labels, &truth, size);
        scores.extend(objects.scores(&propagated, "davis", "masks carried frame by frame"));
        scores.extend(objects.scores(&alone, "served", "masks carried from frame 0"));
        let frame_name = frame.picture.file_stem().unwrap_or_default().to_string_lossy();
        let mask = Some(PropagatedMask { found: propagated, truth });
        take(PairResult {
            name: format!("{} 0-{frame_name}", scene.name),
            ..pair.pair_result(&scene.name, scores, &found, mask)
        });
    }
    Ok(())
}

fn describe_frame(
    runner: &mut MethodRunner<'_>,
    frame: &SceneFrame,
    size: ImageSize,
) -> Result<Arc<DescribedPicture>, EvaluationError> {
    let described = runner.describe(&frame.picture)?;
    let found = described.size();
    if found != size {
        let text = |size: ImageSize| format!("{} x {}", size.width, size.height);
        let path = frame.picture.clone();
        return Err(DatasetError::Size { path, found: text(found), expected: text(size) }.into());
    }
    Ok(described)
}

/// The points of a regular grid of whole pixels, about `along` along the longer side.
fn pixel_grid(size: ImageSize, along: u32) -> ImagePoints {
    let spacing = (size.longer_side() / along.max(1)).max(1);
    let places = |length: u32| (spacing / 2..length).step_by(spacing as usize).map(f64::from);
    let rows = places(size.height).flat_map(|y| places(size.width).map(move |x| PixelPoint { x, y }));
    inside(rows.collect(), size)
}

/// The first frame and a later one.
struct FramePair<'a> {
    first: &'a DescribedPicture,
    target: &'a DescribedPicture,
    frame: &'a SceneFrame,
}

impl FramePair<'_> {
    fn images(&self) -> ImagePair<'_> {
        ImagePair { source: self.first.matched_image(), target: self.target.matched_image() }
    }

    fn failed(&self, source: densecl_vision::matching::MatchError) -> EvaluationError {
        EvaluationError::Match { picture: self.frame.picture.clone(), source }
    }

    /// Scores of points, and the matches of the points that are visible in both frames.
    fn match_points(
        &self,
        points: &ImagePoints,
        truth: &GroundTruth,
        runner: &mut MethodRunner<'_>,
        options: &EvaluationOptions,
    ) -> Result<(Vec<Score>, Vec<MeasuredMatch>), EvaluationError> {
        let never = Cancellation::default();
        let matches = runner
            .timed(|| find_correspondences(self.images(), Queries::Points(points), &options.match_options(), &never))
            .map_err(|error| self.failed(error))?;
        let place = |found: &PointMatch| truth.visible_at(found.source.x as usize, found.source.y as usize);
        let (seen, hidden): (Vec<_>, Vec<_>) = matches.into_iter().partition(|found| place(found).is_some());
        let found = misses(&seen, &place);
        let errors = errors_px(&found);
        let mut scores = Vec::new();
        scores.extend(median(&errors).map(|px| Score::new("epe_median", "end-point error, median", Unit::Px, px)));
        scores.extend(mean(&errors).map(|px| Score::new("epe_mean", "end-point error, mean", Unit::Px, px)));
        scores.extend(pck_scores(&errors, f64::from(self.target.size().longer_side())));
        scores.extend(occlusion_scores(&seen, &hidden));
        Ok((scores, found))
    }

    fn pair_result(
        &self,
        scene: &str,
        scores: Vec<Score>,
        found: &[MeasuredMatch],
        mask: Option<PropagatedMask>,
    ) -> PairResult {
        let size = self.target.size();
        PairResult {
            name: String::new(),
            sequence: scene.to_owned(),
            group: None,
            scores,
            curves: vec![curve_sample(&PCK, &errors_px(found), 1.0)],
            illustration: PairIllustration {
                source: self.first.picture.path.clone(),
                target: self.target.picture.path.clone(),
                sizes: [self.first.size(), size],
                within_px: SHOWN_WITHIN_SIDE * f64::from(size.longer_side()),
                matches: selection(found),
                mask,
            },
        }
    }
}

/// Scores of the detection of hidden points by a low similarity, and by matches that are not mutual. Without a score where
/// all points are visible, or none.
fn occlusion_scores(seen: &[PointMatch], hidden: &[PointMatch]) -> Vec<Score> {
    let points = |score: fn(&PointMatch) -> f64| -> Vec<(f64, bool)> {
        let of = |matches: &[PointMatch], is_hidden: bool| -> Vec<(f64, bool)> {
            matches.iter().map(|found| (score(found), is_hidden)).collect()
        };
        [of(seen, false), of(hidden, true)].concat()
    };
    let by_similarity = points(|found| -f64::from(found.score));
    let by_mutuality = points(|found| f64::from(u8::from(!found.mutual)));
    let share = hidden.len() as f64 / (seen.len() + hidden.len()).max(1) as f64;
    let score = |id: &str, label: &str, value: f64| Score::new(id, label, Unit::Share, value);
    let scores = [
        area_under_roc(&by_similarity).map(|area| score("occlusion_auc", "hidden points: AUC by similarity", area)),
        area_under_roc(&by_mutuality)
            .map(|area| score("occlusion_auc_mutual", "hidden points: AUC by mutuality", area)),
        average_precision(&by_similarity)
            .map(|precision| score("occlusion_ap", "hidden points: AP by similarity", precision)),
        average_precision(&by_similarity).map(|_| score("occlusion_share", "hidden points: their share", share)),
    ];
    scores.into_iter().flatten().collect()
}

/// The labels of the first frame's objects, and the true mask of another frame.
struct Objects<'a> {
    labels: Vec<u8>,
    truth: &'a [u8],
    size: ImageSize,
}

impl<'a> Objects<'a> {
    fn new(first: &[u8], truth: &'a [u8], size: ImageSize) -> Self {
        let labels = (1..=u8::MAX).filter(|label| first.contains(label)).collect();
        Self { labels, truth, size }
    }

    /// J, F and their mean J&F (Pont-Tuset et al., *The 2017 DAVIS Challenge*, section 3) of a propagated mask, each a mean
    /// over the objects.
    fn scores(&self, found: &[u8], id: &str, label: &str) -> Vec<Score> {
        let tolerance = BoundaryTolerance::for_image(self.size);
        let over_objects =
            |measure: &dyn Fn(u8) -> f64| mean(&self.labels.iter().map(|&label| measure(label)).collect::<Vec<f64>>());
        let region = over_objects(&|object| region_similarity(found, self.truth, object));
        let masks = MaskPair { found, truth: self.truth, size: self.size };
        let boundary = over_objects(&|object| boundary_f(masks, object, tolerance));
        let (Some(region), Some(boundary)) = (region, boundary) else { return Vec::new() };
        let score = |kind: &str, name: &str, value: f64| {
            Score::new(format!("{kind}_{id}"), format!("{label}: {name}"), Unit::Share, value)
        };
        vec![score("jf", "J&F", f64::midpoint(region, boundary)), score("j", "J", region), score("f", "F", boundary)]
    }
}
