//! The protocol for `HPatches`: the first image of a sequence is matched with each of the others.
//!
//! The mean matching accuracy (MMA) is that of Dusmanu et al., *D2-Net*, CVPR 2019, section 5.1, with the cells of the map as
//! keypoints. The accuracy of estimated homographies is that of `DeTone` et al., *`SuperPoint`*, CVPRW 2018, section 7.3, but
//! at the images' own size instead of 480 × 640.

use super::{EvaluationError, EvaluationOptions, MethodRunner, curve_sample, errors_px, inside, misses, pck_scores};
use crate::dataset::{Sequence, SequencePicture};
use crate::feature_method::DescribedPicture;
use crate::metrics::{mean_corner_error, share_below};
use crate::pair_result::{Curve, MeasuredMatch, PairIllustration, PairResult, Score, Unit, selection};
use densecl_vision::features::{Geometry, GridSize, ImagePoints, PixelPoint};
use densecl_vision::homography::Homography;
use densecl_vision::image::ImageSize;
use densecl_vision::matching::{
    Cancellation, GeometricModel, GeometryPair, ImagePair, MatchOptions, PointMatch, Queries, VerifyOptions,
    find_correspondences, verify,
};

const MMA_PX: [f64; 4] = [1.0, 3.0, 5.0, 10.0];
const HOMOGRAPHY_PX: [f64; 3] = [1.0, 3.0, 5.0];
/// Smaller errors are drawn as right.
const SHOWN_WITHIN_PX: f64 = 5.0;
/// Inlier threshold for keypoints, which have no cells: the default of `OpenCV`'s `findHomography`.
const KEYPOINT_THRESHOLD_PX: f64 = 3.0;
static MMA: Curve = Curve {
    id: "mma",
    label: "mean matching accuracy",
    axis: "pixels",
    thresholds: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0],
};

pub(super) fn measure(
    sequence: &Sequence,
    runner: &mut MethodRunner<'_>,
    options: &EvaluationOptions,
    take: &mut dyn FnMut(PairResult),
) -> Result<(), EvaluationError> {
    let source = runner.describe(&sequence.first)?;
    for (index, other) in sequence.others.iter().enumerate() {
        let target = runner.describe(&other.picture)?;
        let pair = HomographyPair { source: &source, target: &target, truth: &other.homography };
        let measured = pair.measure(runner, options, other)?;
        let group = if sequence.changes_viewpoint() { "viewpoint" } else { "illumination" };
        take(PairResult {
            name: format!("{} 1-{}", sequence.name, index + 2),
            sequence: sequence.name.clone(),
            group: Some(group.to_owned()),
            ..measured
        });
    }
    Ok(())
}

struct HomographyPair<'a> {
    source: &'a DescribedPicture,
    target: &'a DescribedPicture,
    truth: &'a Homography,
}

impl HomographyPair<'_> {
    fn measure(
        &self,
        runner: &mut MethodRunner<'_>,
        options: &EvaluationOptions,
        other: &SequencePicture,
    ) -> Result<PairResult, EvaluationError> {
        let failed = |source| EvaluationError::Match { picture: other.picture.clone(), source };
        let settings = options.match_options();
        let pair = ImagePair { source: self.source.matched_image(), target: self.target.matched_image() };
        let never = Cancellation::default();
        let keypoints = runner.keypoint_matches(self.source, self.target)?;
        let threshold_px = keypoints.is_some().then_some(KEYPOINT_THRESHOLD_PX);
        let mutual = MatchOptions { mutual: true, ..settings };
        let cells = runner.timed(|| find_correspondences(pair, Queries::Cells, &mutual, &never)).map_err(failed)?;
        let mut matches = keypoints.unwrap_or(cells);
        let corner_error_px = self.corner_error(&mut matches, threshold_px).map_err(|error| failed(error.into()))?;
        let found = misses(&matches, &|found| self.truth.project(found.source));
        let points = self.visible_grid(options.grid_points);
        let grid = find_correspondences(pair, Queries::Points(&points), &settings, &never).map_err(failed)?;
        let grid = errors_px(&misses(&grid, &|found| self.truth.project(found.source)));
        Ok(self.pair_result(&found, corner_error_px, &grid))
    }

    fn pair_result(&self, found: &[MeasuredMatch], corner_error_px: f64, grid: &[f64]) -> PairResult {
        let errors = errors_px(found);
        let mut scores = vec![Score::new("matches", "matches a pair", Unit::Count, errors.len() as f64)];
        scores.extend(MMA_PX.iter().map(|&px| {
            // A pair without matches counts as 0.
            let share = share_below(&errors, px).unwrap_or(0.0);
            Score::new(format!("mma_{px}px"), format!("MMA at {px} px"), Unit::Share, share)
        }));
        scores.extend(HOMOGRAPHY_PX.iter().map(|&px| {
            let right = f64::from(u8::from(corner_error_px <= px));
            Score::new(format!("homography_{px}px"), format!("homography within {px} px"), Unit::Share, right)
        }));
        scores.extend(pck_scores(grid, f64::from(self.target.size().longer_side())));
        PairResult {
            name: String::new(),
            sequence: String::new(),
            group: None,
            scores,
            curves: vec![curve_sample(&MMA, &errors, 1.0)],
            illustration: PairIllustration {
                source: self.source.picture.path.clone(),
                target: self.target.picture.path.clone(),
                sizes: [self.source.size(), self.target.size()],
                within_px: SHOWN_WITHIN_PX,
                matches: selection(found),
                mask: None,
            },
        }
    }

    /// The corner error of the homography that RANSAC estimates from `matches`; infinite if it finds none.
    fn corner_error(
        &self,
        matches: &mut [PointMatch],
        threshold_px: Option<f64>,
    ) -> Result<f64, densecl_vision::matching::Cancelled> {
        let geometry = |described: &DescribedPicture| match threshold_px {
            None => described.map.geometry(described.size()),
            Some(_) => pixels_as_cells(described.size()),
        };
        let options = VerifyOptions { model: GeometricModel::Homography, threshold_px };
        let geometries = GeometryPair { source: geometry(self.source), target: geometry(self.target) };
        let verified = verify(matches, geometries, &options, &Cancellation::default())?;
        let estimate = verified.matrix.and_then(|rows| Homography::new(rows).ok());
        Ok(estimate.map_or(f64::INFINITY, |estimate| mean_corner_error(&estimate, self.truth, self.source.size())))
    }

    /// The points of a regular grid in the source that are inside the target.
    fn visible_grid(&self, along: u32) -> ImagePoints {
        let (source, target) = (self.source.size(), self.target.size());
        let spacing = (f64::from(source.longer_side()) / f64::from(along.max(1))).max(1.0);
        let grid =
            ImagePoints::grid(source, spacing, usize::MAX).expect("the spacing is a pixel or more, without a limit");
        let is_inside = |place: PixelPoint| ImagePoints::new(vec![place], target).is_ok();
        let visible = |point: &PixelPoint| self.truth.project(*point).is_some_and(is_inside);
        inside(grid.as_slice().iter().copied().filter(visible).collect(), source)
    }
}

fn pixels_as_cells(image: ImageSize) -> Geometry {
    Geometry { image, grid: GridSize { width: image.width as usize, height: image.height as usize } }
}
