//! Tests on known geometries with noise and outliers, and on degenerate matches.

use nalgebra::Vector3;
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::features::{GridSize, PixelPoint};
use crate::image::ImageSize;

const IMAGE: ImageSize = ImageSize { width: 640, height: 480 };
/// Cells of 16 pixels: the threshold is 8.
const GEOMETRY: Geometry = Geometry { image: IMAGE, grid: GridSize { width: 40, height: 30 } };
const GEOMETRIES: GeometryPair = GeometryPair { source: GEOMETRY, target: GEOMETRY };

fn found(source: [f64; 2], target: [f64; 2]) -> PointMatch {
    PointMatch {
        query: 0,
        source: source.into(),
        target: target.into(),
        score: 1.0,
        mutual: true,
        ratio: 0.5,
        inlier: None,
        candidates: Vec::new(),
    }
}

fn verified(matches: &mut [PointMatch], model: GeometricModel) -> Verification {
    let options = VerifyOptions { model, threshold_px: None };
    verify(matches, GEOMETRIES, &options, &Cancellation::default()).unwrap()
}

fn project(matrix: &Matrix3<f64>, [x, y]: [f64; 2]) -> [f64; 2] {
    let at = matrix * Vector3::new(x, y, 1.0);
    [at.x / at.z, at.y / at.z]
}

fn matrix_of(verification: &Verification) -> Matrix3<f64> {
    Matrix3::from_fn(|row, column| verification.matrix.unwrap()[row][column])
}

/// The largest distance between where two homographies map the corners of the image.
fn corner_error(one: &Matrix3<f64>, other: &Matrix3<f64>) -> f64 {
    let corners = [[-0.5, -0.5], [639.5, -0.5], [-0.5, 479.5], [639.5, 479.5]];
    let distance = |corner| {
        let ([a, b], [c, d]) = (project(one, corner), project(other, corner));
        (a - c).hypot(b - d)
    };
    corners.into_iter().map(distance).fold(0.0, f64::max)
}

/// Random points and noise.
struct Scene(ChaCha8Rng);

impl Scene {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    fn within(&mut self, low: f64, high: f64) -> f64 {
        self.0.random_range(low..high)
    }

    fn point(&mut self) -> [f64; 2] {
        [self.within(0.0, 639.0), self.within(0.0, 479.0)]
    }

    fn noisy(&mut self, point: [f64; 2], noise_px: f64) -> [f64; 2] {
        // The sum of two uniform numbers has a triangular distribution, scaled to the standard deviation noise_px.
        point.map(|value| value + (self.within(-1.0, 1.0) + self.within(-1.0, 1.0)) * noise_px * 1.5_f64.sqrt())
    }

    /// A rotation about the middle, a scaling, a slight perspective and a translation.
    fn homography(&mut self) -> Matrix3<f64> {
        let (angle, size) = (self.within(-0.5, 0.5), self.within(0.8, 1.2));
        let (sine, cosine) = angle.sin_cos();
        let turn = Matrix3::new(size * cosine, -size * sine, 0.0, size * sine, size * cosine, 0.0, 0.0, 0.0, 1.0);
        let tilt = Matrix3::new(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, self.within(-3e-4, 3e-4), self.within(-3e-4, 3e-4), 1.0);
        let middle = Matrix3::new(1.0, 0.0, 320.0, 0.0, 1.0, 240.0, 0.0, 0.0, 1.0);
        let shift = Matrix3::new(1.0, 0.0, self.within(-40.0, 40.0), 0.0, 1.0, self.within(-40.0, 40.0), 0.0, 0.0, 1.0);
        shift * middle * turn * tilt * middle.try_inverse().unwrap()
    }

    /// `inliers` matches under `homography`, then `outliers` anywhere.
    fn matches(
        &mut self,
        homography: &Matrix3<f64>,
        inliers: usize,
        outliers: usize,
        noise_px: f64,
    ) -> Vec<PointMatch> {
        let mut matches = Vec::new();
        for _ in 0..inliers {
            let source = self.point();
            matches.push(found(source, self.noisy(project(homography, source), noise_px)));
        }
        for _ in 0..outliers {
            matches.push(found(self.point(), self.point()));
        }
        matches
    }

    /// Points at different depths seen by two cameras, and the fundamental matrix of the cameras (Hartley and Zisserman,
    /// section 9.2.2).
    fn two_views(&mut self, inliers: usize, outliers: usize, noise_px: f64) -> (Matrix3<f64>, Vec<PointMatch>) {
        let (camera, rotation, shift) = Self::cameras();
        let inverse = camera.try_inverse().unwrap();
        let fundamental = inverse.transpose() * shift.cross_matrix() * rotation * inverse;
        let mut matches = Vec::new();
        while matches.len() < inliers {
            let source = self.point();
            let depth = self.within(3.0, 9.0);
            let target = Self::seen_at(source, depth);
            if (0.0..640.0).contains(&target[0]) && (0.0..480.0).contains(&target[1]) {
                matches.push(found(self.noisy(source, noise_px), self.noisy(target, noise_px)));
            }
        }
        for _ in 0..outliers {
            matches.push(found(self.point(), self.point()));
        }
        (fundamental, matches)
    }
}

impl Scene {
    /// The calibration of both cameras, and the rotation and translation from the first to the second.
    fn cameras() -> (Matrix3<f64>, Matrix3<f64>, Vector3<f64>) {
        let camera = Matrix3::new(600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0);
        let rotation = nalgebra::Rotation3::from_euler_angles(0.03, -0.15, 0.05).into_inner();
        (camera, rotation, Vector3::new(0.8, 0.1, 0.15))
    }

    /// Where the second camera sees a point that the first one sees at `source` and at a depth.
    fn seen_at(source: [f64; 2], depth: f64) -> [f64; 2] {
        let (camera, rotation, shift) = Self::cameras();
        let place =
            rotation * (camera.try_inverse().unwrap() * Vector3::new(source[0], source[1], 1.0) * depth) + shift;
        project(&camera, [place.x / place.z, place.y / place.z])
    }

    /// Points of a straight edge in space, seen by the two cameras.
    fn edge_in_two_views(count: usize) -> Vec<PointMatch> {
        (0..count)
            .map(|i| {
                let share = i as f64 / count as f64;
                let source = [60.0 + 420.0 * share, 80.0 + 300.0 * share];
                // The inverse depth of a straight edge is linear in the image.
                found(source, Self::seen_at(source, (0.15 + 0.15 * share).recip()))
            })
            .collect()
    }

    /// Sets of matches that agree with many fundamental matrices, each with its name.
    fn degenerate_sets(&mut self, noise_px: f64) -> Vec<(&'static str, Vec<PointMatch>)> {
        let on_line = |share: f64| [60.0 + 420.0 * share, 80.0 + 300.0 * share];
        let share = |i: usize| i as f64 / 20.0;
        let twice = |[x, y]: [f64; 2]| [2.0 * x + 0.5, 2.0 * y + 0.5];
        let mut sets: Vec<(&'static str, Vec<PointMatch>)> = Vec::new();
        for (name, beside) in [("a line", 0), ("a line and one point", 1), ("a line and two points", 2)] {
            let mut matches: Vec<_> = (0..20).map(|i| found(on_line(share(i)), twice(on_line(share(i))))).collect();
            matches.extend((0..beside).map(|i| {
                let point = [500.0 - 60.0 * f64::from(i), 30.0 + 20.0 * f64::from(i)];
                found(point, twice(point))
            }));
            sets.push((name, matches));
        }
        sets.push(("a line of the source", (0..20).map(|i| found(on_line(share(i)), self.point())).collect()));
        sets.push(("a line of the target", (0..20).map(|i| found(self.point(), on_line(share(i)))).collect()));
        let (_, seven) = self.two_views(7, 0, 0.0);
        sets.push(("seven places", seven.iter().cycle().take(21).cloned().collect()));
        let places: Vec<_> = (0..5).map(|_| self.point()).collect();
        sets.push(("few places of the target", (0..80).map(|i| found(self.point(), places[i % 5])).collect()));
        sets.push(("one place of the target", (0..80).map(|_| found(self.point(), [320.0, 200.0])).collect()));
        sets.push(("few places of the source", (0..80).map(|i| found(places[i % 5], self.point())).collect()));
        for found in sets.iter_mut().flat_map(|(_, matches)| matches) {
            found.source = self.noisy(found.source.into(), noise_px).into();
            found.target = self.noisy(found.target.into(), noise_px).into();
        }
        sets
    }
}

/// Tells whether two points of an image are nearer than about the threshold.
fn is_crowded(matches: &[PointMatch]) -> bool {
    let near = |one: &PointMatch, other: &PointMatch| {
        let close = |a: PixelPoint, b: PixelPoint| (a.x - b.x).hypot(a.y - b.y) < 9.0;
        close(one.source, other.source) || close(one.target, other.target)
    };
    matches.iter().enumerate().any(|(i, one)| matches[..i].iter().any(|other| near(one, other)))
}

/// The root mean square of the target points' distances from their epipolar lines.
fn epipolar_error(fundamental: &Matrix3<f64>, matches: &[PointMatch]) -> f64 {
    let squares = matches.iter().map(|found| {
        let line = fundamental * Vector3::new(found.source.x, found.source.y, 1.0);
        (line.x * found.target.x + line.y * found.target.y + line.z).powi(2) / (line.x * line.x + line.y * line.y)
    });
    (squares.sum::<f64>() / matches.len() as f64).sqrt()
}

fn is_inlier(found: &PointMatch) -> bool {
    found.inlier == Some(true)
}

#[test]
fn matches_that_agree_by_chance_have_no_consensus() {
    for seed in 0..10 {
        let mut scene = Scene::new(seed);
        let truth = scene.homography();
        for model in [GeometricModel::Homography, GeometricModel::Fundamental] {
            let mut matches = scene.matches(&truth, 0, 200, 0.0);
            assert_eq!(verified(&mut matches, model).reason, Some(Undetermined::NoConsensus), "{model:?} {seed}");
        }
    }
}

#[test]
fn four_corners_determine_a_homography() {
    let truth = Scene::new(3).homography();
    let corners = [[20.0, 30.0], [600.0, 40.0], [610.0, 450.0], [35.0, 440.0]];
    let mut matches: Vec<_> = corners.iter().map(|&corner| found(corner, project(&truth, corner))).collect();
    let verification = verified(&mut matches, GeometricModel::Homography);
    assert_eq!(verification.inliers, 4);
    assert!(corner_error(&truth, &matrix_of(&verification)) < 1e-3);
}

#[test]
fn chances_are_shares_of_an_image() {
    // 80 by 60 thresholds.
    let units = SimilarityTransform::from_image(IMAGE, 8.0);
    let units = ThresholdUnits { source: units, target: units, images: [IMAGE, IMAGE] };
    assert!((units.chance_near_point() - std::f64::consts::PI / 4800.0).abs() < 1e-12);
    assert!((units.chance_near_line() - 200.0 * std::f64::consts::SQRT_2 / 4800.0).abs() < 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn an_exact_homography_is_found_exactly(seed: u64, count in 4_usize..60) {
        let mut scene = Scene::new(seed);
        let truth = scene.homography();
        let mut matches = scene.matches(&truth, count, 0, 0.0);
        let verification = verified(&mut matches, GeometricModel::Homography);
        // Few points may all be near one line.
        prop_assume!(count > 8 || verification.matrix.is_some());
        prop_assert_eq!(verification.inliers, count);
        let error = corner_error(&truth, &matrix_of(&verification));
        prop_assert!(error < 1e-3, "{error}");
    }

    #[test]
    fn a_homography_is_found_among_noise_and_outliers(seed: u64) {
        let mut scene = Scene::new(seed);
        let truth = scene.homography();
        let mut matches = scene.matches(&truth, 200, 300, 1.5);
        let verification = verified(&mut matches, GeometricModel::Homography);
        prop_assert!(corner_error(&truth, &matrix_of(&verification)) < 4.0);
        let (right, wrong) = matches.split_at(200);
        prop_assert!(right.iter().all(is_inlier));
        prop_assert!(wrong.iter().filter(|found| is_inlier(found)).count() < 6);
        prop_assert_eq!(verification.inliers, matches.iter().filter(|found| is_inlier(found)).count());
    }

    #[test]
    fn two_views_are_found_among_noise_and_outliers(seed: u64) {
        let mut scene = Scene::new(seed);
        let (truth, mut matches) = scene.two_views(300, 200, 0.7);
        let verification = verified(&mut matches, GeometricModel::Fundamental);
        let (right, wrong) = matches.split_at(300);
        prop_assert!(right.iter().filter(|found| is_inlier(found)).count() >= 297);
        // A wrong match lies near its epipolar line by chance.
        prop_assert!(wrong.iter().filter(|found| is_inlier(found)).count() < 30);
        let matrix = matrix_of(&verification);
        prop_assert!(matrix.determinant().abs() < 1e-12, "rank 2");
        prop_assert!(epipolar_error(&matrix, right) < epipolar_error(&truth, right) + 0.7);
    }

    #[test]
    fn exact_views_are_found_exactly(seed: u64, count in 16_usize..60) {
        let (truth, mut matches) = Scene::new(seed).two_views(count, 0, 0.0);
        let verification = verified(&mut matches, GeometricModel::Fundamental);
        prop_assert_eq!(verification.inliers, count);
        let (found, truth) = (matrix_of(&verification), scaled_to_unit_norm(truth));
        let difference = (found - truth).norm();
        prop_assert!(difference < 1e-4, "{difference}");
    }

    #[test]
    fn degenerate_sets_determine_no_fundamental_matrix(seed: u64, noise_px in prop::sample::select(vec![0.0, 0.7, 2.0])) {
        let mut scene = Scene::new(seed);
        for (name, mut matches) in scene.degenerate_sets(noise_px) {
            let verification = verified(&mut matches, GeometricModel::Fundamental);
            prop_assert_eq!(verification.reason, Some(Undetermined::Degenerate), "{}", name);
            prop_assert!(matches.iter().all(|found| found.inlier == Some(false)));
        }
    }

    #[test]
    fn repeated_places_determine_no_homography(seed: u64, jitter_px in 0.0_f64..2.0) {
        let mut scene = Scene::new(seed);
        let triangle = [[40.0, 60.0], [560.0, 90.0], [300.0, 430.0]];
        let mut matches: Vec<_> =
            (0..21).map(|i| found(scene.noisy(triangle[i % 3], jitter_px), scene.noisy(triangle[i % 3], jitter_px))).collect();
        prop_assert_eq!(verified(&mut matches, GeometricModel::Homography).matrix, None);
        // All but one place are on a line, and the other one is there many times.
        let on_line = |i: usize| [30.0 + 50.0 * i as f64, 400.0 - 20.0 * i as f64];
        let mut matches: Vec<_> =
            (0..12).map(|i| found(scene.noisy(on_line(i), jitter_px), scene.noisy(on_line(i), jitter_px))).collect();
        matches.extend((0..20).map(|_| found(scene.noisy([320.0, 40.0], jitter_px), scene.noisy([320.0, 40.0], jitter_px))));
        prop_assert_eq!(verified(&mut matches, GeometricModel::Homography).reason, Some(Undetermined::Degenerate));
    }

    #[test]
    fn a_line_and_eight_points_beside_it_determine_a_fundamental_matrix(seed: u64) {
        let mut scene = Scene::new(seed);
        let (truth, mut matches) = scene.two_views(8, 0, 0.0);
        matches.extend(Scene::edge_in_two_views(12));
        let verification = verified(&mut matches, GeometricModel::Fundamental);
        prop_assume!(!is_crowded(&matches));
        prop_assert!(verification.matrix.is_some(), "{:?}", verification.reason);
        let difference = (matrix_of(&verification) - scaled_to_unit_norm(truth)).norm();
        prop_assert!(difference < 1e-3, "{difference}");
    }

    #[test]
    fn repetitions_change_nothing(seed: u64, times in 2_usize..5) {
        let mut scene = Scene::new(seed);
        let (_, mut once) = scene.two_views(40, 20, 0.7);
        let mut repeated: Vec<_> = once.iter().cycle().take(times * once.len()).cloned().collect();
        for model in [GeometricModel::Homography, GeometricModel::Fundamental] {
            let (one, many) = (verified(&mut once, model), verified(&mut repeated, model));
            prop_assert_eq!((one.matrix, one.reason, times * one.inliers), (many.matrix, many.reason, many.inliers));
        }
    }

    #[test]
    fn any_matches_give_a_finite_matrix_or_a_reason(
        points in prop::collection::vec((0_u8..6, 0_u8..6, 0_u8..6, 0_u8..6), 0..40), is_homography: bool,
    ) {
        let mut matches: Vec<PointMatch> = points.iter().map(|&(x, y, u, v)| {
            found([f64::from(x) * 100.0, f64::from(y) * 90.0], [f64::from(u) * 100.0, f64::from(v) * 90.0])
        }).collect();
        let model = if is_homography { GeometricModel::Homography } else { GeometricModel::Fundamental };
        let verification = verified(&mut matches, model);
        prop_assert_eq!(verification.matrix.is_none(), verification.reason.is_some());
        prop_assert!(verification.matrix.is_none_or(|rows| rows.as_flattened().iter().all(|entry| entry.is_finite())));
        prop_assert!(matches.iter().all(|found| found.inlier.is_some()));
    }
}

#[test]
fn equal_matches_give_equal_results() {
    let run = || {
        let mut scene = Scene::new(7);
        let truth = scene.homography();
        let mut matches = scene.matches(&truth, 100, 200, 1.0);
        (verified(&mut matches, GeometricModel::Homography), matches)
    };
    assert_eq!(run(), run());
}

#[test]
fn too_few_matches_are_reported() {
    for (model, least) in [(GeometricModel::Homography, 4), (GeometricModel::Fundamental, 8)] {
        let (_, mut matches) = Scene::new(1).two_views(least - 1, 0, 0.0);
        let verification = verified(&mut matches, model);
        assert_eq!((verification.matrix, verification.reason), (None, Some(Undetermined::TooFewMatches)));
        assert_eq!(verification.inliers, 0);
        assert!(matches.iter().all(|found| found.inlier == Some(false)));
        assert_eq!(verified(&mut [], model).reason, Some(Undetermined::TooFewMatches));
    }
}

#[test]
fn points_on_a_line_determine_no_homography() {
    let on_line = |i: usize| [20.0 + 10.0 * i as f64, 50.0 + 5.0 * i as f64];
    let mut matches: Vec<_> = (0..40).map(|i| found(on_line(i), on_line(i))).collect();
    assert_eq!(verified(&mut matches, GeometricModel::Homography).reason, Some(Undetermined::Degenerate));
    let mut scene = Scene::new(3);
    let mut nearly: Vec<_> =
        (0..40).map(|i| found(scene.noisy(on_line(i), 1.0), scene.noisy(on_line(i), 1.0))).collect();
    nearly.push(found([300.0, 20.0], [300.0, 20.0]));
    assert_eq!(verified(&mut nearly, GeometricModel::Homography).reason, Some(Undetermined::Degenerate));
}

#[test]
fn a_flat_scene_determines_no_fundamental_matrix() {
    let mut scene = Scene::new(4);
    let truth = scene.homography();
    let mut matches = scene.matches(&truth, 200, 40, 1.0);
    assert_eq!(verified(&mut matches, GeometricModel::Fundamental).reason, Some(Undetermined::Degenerate));
}

#[test]
fn equal_target_points_determine_nothing() {
    let mut matches: Vec<_> = (0..20).map(|i| found([f64::from(i) * 30.0, 200.0], [10.0, 10.0])).collect();
    for model in [GeometricModel::Homography, GeometricModel::Fundamental] {
        assert_eq!(verified(&mut matches, model).matrix, None);
    }
}

#[test]
fn the_result_does_not_depend_on_the_source_resolution() {
    let mut scene = Scene::new(5);
    let truth = scene.homography();
    let mut matches = scene.matches(&truth, 100, 50, 1.5);
    let small = verified(&mut matches, GeometricModel::Homography);
    for found in &mut matches {
        found.source = PixelPoint { x: found.source.x * 6.0 + 2.5, y: found.source.y * 6.0 + 2.5 };
    }
    let large = Geometry { image: ImageSize { width: 3840, height: 2880 }, ..GEOMETRY };
    let options = VerifyOptions { model: GeometricModel::Homography, threshold_px: None };
    let from_large =
        verify(&mut matches, GeometryPair { source: large, ..GEOMETRIES }, &options, &Cancellation::default()).unwrap();
    assert_eq!((from_large.inliers, from_large.threshold_px), (small.inliers, 8.0));
}

#[test]
fn cancelled_verification_ends() {
    let cancellation = Cancellation::default();
    cancellation.cancel();
    let (_, mut matches) = Scene::new(8).two_views(10, 0, 0.0);
    let options = VerifyOptions { model: GeometricModel::Homography, threshold_px: None };
    assert_eq!(verify(&mut matches, GEOMETRIES, &options, &cancellation), Err(Cancelled));
}
