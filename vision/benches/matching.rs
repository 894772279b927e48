//! Benchmark of matching, without the computation of the maps: `cargo bench -p densecl-vision --bench matching`.
//!
//! The two matrix products are timed in alternation, so that the load of the machine affects both, and their ratio is
//! printed. The other times are the median and the minimum of all runs.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use densecl_vision::features::{FeatureMap, Geometry, GridSize, ImagePoints, NormalizedMap, PixelPoint};
use densecl_vision::image::ImageSize;
use densecl_vision::matching::{
    Cancellation, GeometricModel, GeometryPair, ImagePair, MatchOptions, MatchedImage, PointMatch, Queries,
    VerifyOptions, find_correspondences, multiply, propagate_labels, verify,
};
use ndarray::Array2;
use ndarray::linalg::general_mat_mul;

const ROUNDS: usize = 21;

fn main() {
    println!("{} threads", rayon::current_num_threads());
    products();
    matches();
    verification();
    labels();
}

/// Noise from a linear congruential generator.
struct Noise(u32);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as f32 / (1 << 24) as f32
    }
}

fn map(channels: usize, side: usize, seed: u32) -> NormalizedMap {
    let mut noise = Noise(seed);
    let data = (0..channels * side * side).map(|_| noise.next() - 0.5).collect();
    FeatureMap::new(channels, side, side, data).expect("the sizes fit").into_normalized()
}

fn matched_image(map: &NormalizedMap) -> MatchedImage<'_> {
    MatchedImage { map, image: image(map.grid()) }
}

fn image(grid: GridSize) -> ImageSize {
    ImageSize { width: grid.width as u32 * 16, height: grid.height as u32 * 16 }
}

fn timed<T>(work: &mut impl FnMut() -> T) -> Duration {
    let started = Instant::now();
    black_box(work());
    started.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn report<T>(name: &str, mut work: impl FnMut() -> T) {
    timed(&mut work);
    let times: Vec<_> = (0..ROUNDS).map(|_| timed(&mut work)).collect();
    let best = times.iter().min().copied().unwrap_or_default();
    println!("{name}: median {:.2?}, best {best:.2?}", median(times));
}

/// The product in use compared with ndarray's, on one thread, at sizes of a block.
fn products() {
    for (rows, channels, cells) in [(100, 512, 1024), (128, 512, 4096), (64, 256, 16_384), (16, 64, 65_536)] {
        let queries = map(channels, 64, 1).matrix().slice(ndarray::s![.., ..rows]).reversed_axes().to_owned();
        let target = map(channels, (cells as f64).sqrt() as usize, 2);
        let mut product = Array2::zeros((rows, cells));
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(&mut || multiply(&queries.view(), &target.matrix(), &mut product.view_mut())));
            theirs.push(timed(&mut || general_mat_mul(1.0, &queries, &target.matrix(), 0.0, &mut product)));
        }
        let (ours, theirs) = (median(ours), median(theirs));
        let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
        println!("product {rows}x{channels}x{cells}: gemm {ours:.2?}, ndarray {theirs:.2?}, ratio {ratio:.2}");
    }
}

fn matches() {
    let (source, target) = (map(512, 32, 3), map(512, 32, 4));
    let pair = ImagePair { source: matched_image(&source), target: matched_image(&target) };
    let spacing = f64::from(image(source.grid()).width) / 10.0;
    let points = ImagePoints::grid(image(source.grid()), spacing, 1000).expect("they fit");
    let never = Cancellation::default();
    let options = MatchOptions::default();
    report(&format!("{} points, 32x32x512", points.len()), || {
        find_correspondences(pair, Queries::Points(&points), &options, &never)
    });
    let (source, target) = (map(512, 64, 5), map(512, 64, 6));
    let pair = ImagePair { source: matched_image(&source), target: matched_image(&target) };
    let mutual = MatchOptions { mutual: true, ..options };
    report("4,096 x 4,096 cells of 512, mutual", || find_correspondences(pair, Queries::Cells, &mutual, &never));
    let many = MatchOptions { top_k: NonZeroUsize::new(100).expect("it is not 0"), ..options };
    report("4,096 x 4,096 cells of 512, top_k 100", || find_correspondences(pair, Queries::Cells, &many, &never));
}

/// 10,000 matches, half of them wrong.
fn verification() {
    let grid = GridSize { width: 40, height: 30 };
    let geometry = Geometry { image: ImageSize { width: 640, height: 480 }, grid };
    let geometries = GeometryPair { source: geometry, target: geometry };
    let mut noise = Noise(7);
    let mut point = || PixelPoint { x: f64::from(noise.next()) * 640.0, y: f64::from(noise.next()) * 480.0 };
    let found = |source: PixelPoint, target: PixelPoint| PointMatch {
        query: 0,
        source,
        target,
        score: 1.0,
        mutual: true,
        ratio: 0.0,
        inlier: None,
        candidates: Vec::new(),
    };
    let mut matches: Vec<PointMatch> = (0..10_000)
        .map(|index| {
            let (source, wrong, jitter) = (point(), point(), point());
            // The view of a camera that turned to the right, with points at different depths.
            let w = 1.0 + source.x * 2e-4;
            let depth = f64::from(index % 7) * 6.0;
            let right = PixelPoint {
                x: (source.x * 0.9 + 30.0) / w + depth + jitter.x / 400.0,
                y: (source.y * 0.95 - 10.0) / w + jitter.y / 300.0,
            };
            found(source, if index % 2 == 0 { right } else { wrong })
        })
        .collect();
    for model in [GeometricModel::Homography, GeometricModel::Fundamental] {
        let options = VerifyOptions { model, threshold_px: None };
        report(&format!("{model:?} of 10,000 matches, half of them wrong"), || {
            verify(&mut matches, geometries, &options, &Cancellation::default())
        });
    }
}

fn labels() {
    let (source, target) = (map(512, 64, 8), map(512, 64, 9));
    let pair = ImagePair { source: matched_image(&source), target: matched_image(&target) };
    let labels: Vec<u8> = (0..1024 * 1024).map(|pixel| (pixel / 100_000) as u8).collect();
    report("labels of 1024 x 1024 pixels over 4,096 cells", || {
        propagate_labels(pair, &labels, &Cancellation::default())
    });
}
