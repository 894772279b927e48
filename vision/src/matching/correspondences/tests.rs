//! Tests on maps of smooth noise, in which neighbouring cells are similar, as in real maps.

use proptest::prelude::*;

use super::super::SimilarityMaps;
use super::*;
use crate::features::{FeatureMap, Tensor as _};

/// Smooth pseudo-random descriptors of the cells of a window at `origin` in an unbounded plane.
fn plane(channels: usize, grid: GridSize, origin: (f64, f64), seed: u64) -> NormalizedMap {
    let mut data = Vec::with_capacity(channels * grid.cells());
    for channel in 0..channels {
        let wave = |salt: u64| {
            let mut state = seed ^ (channel as u64 * 8 + salt).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            state = (state ^ (state >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            ((state ^ (state >> 29)) >> 11) as f64 / (1_u64 << 53) as f64
        };
        for cell in 0..grid.cells() {
            let (x, y) = ((cell % grid.width) as f64 + origin.0, (cell / grid.width) as f64 + origin.1);
            let angle = |salt| {
                (wave(salt) * 2.0 - 1.0) * 1.2 * x + (wave(salt + 1) * 2.0 - 1.0) * 1.2 * y + wave(salt + 2) * 6.3
            };
            data.push((angle(0).sin() + angle(4).sin()) as f32);
        }
    }
    FeatureMap::new(channels, grid.height, grid.width, data).unwrap().into_normalized()
}

fn matched_image(map: &NormalizedMap) -> MatchedImage<'_> {
    let grid = map.grid();
    MatchedImage { map, image: ImageSize { width: grid.width as u32 * 16, height: grid.height as u32 * 16 } }
}

fn pair<'a>(source: &'a NormalizedMap, target: &'a NormalizedMap) -> ImagePair<'a> {
    ImagePair { source: matched_image(source), target: matched_image(target) }
}

fn find(
    source: &NormalizedMap,
    target: &NormalizedMap,
    queries: Queries<'_>,
    options: &MatchOptions,
) -> Vec<PointMatch> {
    find_correspondences(pair(source, target), queries, options, &Cancellation::default()).unwrap()
}

fn distance(one: PixelPoint, other: PixelPoint) -> f64 {
    (one.x - other.x).hypot(one.y - other.y)
}

const GRID: GridSize = GridSize { width: 14, height: 11 };

#[test]
fn every_cell_of_an_image_matches_itself() {
    let map = plane(48, GRID, (0.0, 0.0), 1);
    for refine in [Refinement::None, Refinement::SoftArgmax] {
        let options = MatchOptions { mutual: true, refine, ..MatchOptions::default() };
        let matches = find(&map, &map, Queries::Cells, &options);
        assert_eq!(matches.len(), GRID.cells());
        for found in matches {
            assert!(distance(found.source, found.target) < 0.5, "{found:?}");
            assert!((found.score - 1.0).abs() < 1e-3, "{found:?}");
            assert!(found.ratio < 1.0);
        }
    }
}

#[test]
fn points_anywhere_match_themselves() {
    let map = plane(48, GRID, (0.0, 0.0), 2);
    let points: Vec<PixelPoint> = (0..500)
        .map(|i| PixelPoint { x: f64::from(i * 37 % 448) / 2.0 - 0.5, y: f64::from(i * 53 % 705) / 4.0 - 0.5 })
        .collect();
    let points = ImagePoints::new(points, matched_image(&map).image).unwrap();
    let matches = find(&map, &map, Queries::Points(&points), &MatchOptions::default());
    assert_eq!(matches.len(), points.len());
    for (found, &point) in matches.iter().zip(points.as_slice()) {
        assert_eq!(found.source, point);
        assert!(distance(found.source, found.target) < 0.5, "{found:?}");
        assert!((found.score - 1.0).abs() < 1e-3 && found.mutual, "{found:?}");
    }
}

#[test]
fn a_shift_by_whole_cells_is_found() {
    let (one, other) = (plane(48, GRID, (0.0, 0.0), 3), plane(48, GRID, (3.0, -2.0), 3));
    let options = MatchOptions { mutual: true, ..MatchOptions::default() };
    let matches = find(&one, &other, Queries::Cells, &options);
    let expected = |found: &PointMatch| PixelPoint { x: found.source.x - 48.0, y: found.source.y + 32.0 };
    let interior: Vec<_> =
        matches.iter().filter(|found| found.source.x > 48.0 && found.source.y < 176.0 - 32.0).collect();
    assert_eq!(interior.len(), 11 * 9);
    assert!(interior.iter().all(|found| distance(found.target, expected(found)) < 0.5));
}

#[test]
fn a_shift_by_a_fraction_of_a_cell_is_found() {
    let (one, other) = (plane(48, GRID, (0.0, 0.0), 4), plane(48, GRID, (0.4, 0.3), 4));
    let matches = find(&one, &other, Queries::Cells, &MatchOptions::default());
    for found in matches.iter().filter(|found| found.source.x > 16.0 && found.source.y > 16.0) {
        let expected = PixelPoint { x: found.source.x - 6.4, y: found.source.y - 4.8 };
        assert!(distance(found.target, expected) < 2.0, "{found:?}");
    }
}

#[test]
fn options_filter_matches() {
    let (one, other) = (plane(16, GRID, (0.0, 0.0), 5), plane(16, GRID, (0.0, 0.0), 6));
    let points = ImagePoints::grid(matched_image(&one).image, 11.0, 10_000).unwrap();
    for (queries, count) in [(Queries::Cells, GRID.cells()), (Queries::Points(&points), points.len())] {
        let options = MatchOptions { top_k: NonZeroUsize::new(3).unwrap(), ..MatchOptions::default() };
        let all = find(&one, &other, queries, &options);
        assert_eq!(all.len(), count);
        let check = |options: MatchOptions, keep: &dyn Fn(&PointMatch) -> bool| {
            let expected: Vec<_> = all.iter().filter(|found| keep(found)).cloned().collect();
            assert!(!expected.is_empty() && expected.len() < count, "the options filter some matches: {options:?}");
            assert_eq!(find(&one, &other, queries, &options), expected);
        };
        check(MatchOptions { mutual: true, ..options }, &|found| found.mutual);
        check(MatchOptions { min_score: Some(0.6), ..options }, &|found| found.score >= 0.6);
        check(MatchOptions { max_ratio: Some(0.9), ..options }, &|found| found.ratio <= 0.9);
        let strict = MatchOptions { mutual: true, min_score: Some(0.5), max_ratio: Some(0.95), ..options };
        check(strict, &|found| found.mutual && found.score >= 0.5 && found.ratio <= 0.95);
    }
}

#[test]
fn different_channels_are_an_error() {
    let (one, other) = (plane(4, GRID, (0.0, 0.0), 7), plane(5, GRID, (0.0, 0.0), 7));
    let options = MatchOptions::default();
    let result = find_correspondences(pair(&one, &other), Queries::Cells, &options, &Cancellation::default());
    assert_eq!(result.unwrap_err(), MatchError::Channels { source_channels: 4, target_channels: 5 });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn mutual_matches_are_symmetric(
        seed: u64, (w1, h1, w2, h2) in (1_usize..8, 1_usize..8, 1_usize..8, 1_usize..8),
    ) {
        let one = plane(6, GridSize { width: w1, height: h1 }, (0.0, 0.0), seed);
        let other = plane(6, GridSize { width: w2, height: h2 }, (0.0, 0.0), seed / 2);
        let options = MatchOptions { mutual: true, refine: Refinement::None, ..MatchOptions::default() };
        let there = find(&one, &other, Queries::Cells, &options);
        let back = find(&other, &one, Queries::Cells, &options);
        let mut reversed: Vec<_> = back.iter().map(|found| (found.target, found.source)).collect();
        reversed.sort_by(|a, b| (a.0.y, a.0.x).partial_cmp(&(b.0.y, b.0.x)).unwrap());
        prop_assert_eq!(there.iter().map(|found| (found.source, found.target)).collect::<Vec<_>>(), reversed);
    }

    #[test]
    fn the_order_of_the_points_does_not_matter(seed: u64, mut order in Just((0..40).collect::<Vec<i32>>()).prop_shuffle()) {
        let (one, other) = (plane(6, GRID, (0.0, 0.0), seed), plane(6, GRID, (0.5, 0.0), seed));
        let at = |i: &i32| PixelPoint { x: f64::from(i * 67 % 224), y: f64::from(i * 31 % 176) };
        let run = |order: &[i32]| {
            let points = ImagePoints::new(order.iter().map(at).collect(), matched_image(&one).image).unwrap();
            find(&one, &other, Queries::Points(&points), &MatchOptions::default())
        };
        let shuffled = run(&order);
        order.sort_unstable();
        let sorted = run(&order);
        for found in &shuffled {
            let same = sorted.iter().find(|other| other.source == found.source).unwrap();
            prop_assert_eq!(same.target, found.target);
        }
    }

    #[test]
    fn candidates_are_sorted_and_distinct_and_the_match_is_the_first(seed: u64, top_k in 1_usize..6) {
        let (one, other) = (plane(6, GRID, (0.0, 0.0), seed), plane(6, GRID, (9.0, 9.0), seed));
        let options = MatchOptions { top_k: NonZeroUsize::new(top_k).unwrap(), refine: Refinement::None, ..MatchOptions::default() };
        for found in find(&one, &other, Queries::Cells, &options) {
            prop_assert_eq!(found.candidates.len(), top_k);
            prop_assert_eq!(found.candidates[0], Candidate { target: found.target, score: found.score });
            prop_assert!(found.candidates.is_sorted_by(|a, b| a.score >= b.score));
            for pair in found.candidates.windows(2) {
                prop_assert!(distance(pair[0].target, pair[1].target) > 16.0);
            }
        }
    }

    #[test]
    fn matches_stay_inside_the_target(seed: u64, width in 1_usize..5, height in 1_usize..5) {
        let (one, other) = (plane(6, GRID, (0.0, 0.0), seed), plane(6, GridSize { width, height }, (3.0, 1.0), seed));
        let points = ImagePoints::grid(matched_image(&one).image, 5.0, 10_000).unwrap();
        let found = find(&one, &other, Queries::Points(&points), &MatchOptions::default());
        let targets = found.iter().map(|found| found.target).collect();
        prop_assert!(ImagePoints::new(targets, matched_image(&other).image).is_ok());
        prop_assert!(found.iter().all(|found| found.score.is_finite()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_score_is_beyond_one(seed: u64, channels in 2_usize..600, top_k in 1_usize..4, is_negated: bool) {
        // An image matched with itself, where every descriptor meets its equal, or with its negative.
        let map = plane(channels, GRID, (0.3, 0.1), seed);
        let negated = FeatureMap::new(channels, GRID.height, GRID.width, map.data().iter().map(|value| -value).collect());
        let negated = negated.unwrap().into_normalized();
        let target = if is_negated { &negated } else { &map };
        let points = ImagePoints::grid(matched_image(&map).image, 9.0, 1000).unwrap();
        for (queries, refine) in [
            (Queries::Cells, Refinement::None),
            (Queries::Cells, Refinement::SoftArgmax),
            (Queries::Points(&points), Refinement::SoftArgmax),
        ] {
            let top_k = NonZeroUsize::new(top_k).unwrap();
            let matches = find(&map, target, queries, &MatchOptions { top_k, refine, ..MatchOptions::default() });
            prop_assert!(matches.iter().all(|found| (0.0..=1.0).contains(&found.ratio)));
            let scores = matches.iter().flat_map(|found| found.candidates.iter().map(|it| it.score).chain([found.score]));
            for score in scores {
                prop_assert!((-1.0..=1.0).contains(&score), "{score}");
            }
        }
        let similarities = SimilarityMaps::new(matched_image(&map), &points, target.clone()).unwrap();
        let mut values = Vec::new();
        similarities.append(0..similarities.shape().iter().product(), &mut values);
        prop_assert!(values.iter().all(|value| (-1.0..=1.0).contains(value)));
    }
}
