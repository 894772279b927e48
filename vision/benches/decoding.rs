//! Benchmark of decoding a large JPEG for a small input: `cargo bench -p densecl-vision --bench decoding`, or with files
//! of one's own: `… -- a.jpg b.jpg`.
//!
//! Decoding the whole picture and then resizing it, and [`decode_resized`], are timed in alternation on one thread. Printed
//! are medians, their ratio, and how far apart the results are.
#![expect(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::hint::black_box;
use std::io::Cursor;
use std::time::{Duration, Instant};

use densecl_vision::image::{DecodeLimits, ImageSize, ResizedPicture, RgbImage, decode, decode_resized, resize};
use image::codecs::jpeg::JpegEncoder;

const ROUNDS: usize = 11;
/// Longer sides that are resized to.
const SIDES_PX: [u32; 3] = [224, 512, 1024];
const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 200_000_000 };
/// A telephone's picture.
const SIZE: ImageSize = ImageSize { width: 4032, height: 3024 };

fn main() {
    let names: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if names.is_empty() {
        compare("texture", &texture());
    }
    for name in names {
        compare(&name, &std::fs::read(&name).expect("a file"));
    }
}

fn compare(name: &str, file: &[u8]) {
    println!("{name}, {} bytes", file.len());
    for side_px in SIDES_PX {
        let small = |full: ImageSize| {
            let side = |length: u32| (length * side_px).div_ceil(full.longer_side());
            ImageSize { width: side(full.width), height: side(full.height) }
        };
        let whole = || {
            let picture = decode(file, &LIMITS).expect("a picture");
            resize(&picture, small(picture.dimensions().into())).expect("a size")
        };
        let reduced = || decode_resized(file, &LIMITS, small).expect("a picture");
        let ResizedPicture { full_size: ImageSize { width, height }, pixels } = reduced();
        let difference = mean_difference(&pixels, &whole());
        let (mut whole_times, mut reduced_times) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            whole_times.push(time(|| drop(black_box(whole()))));
            reduced_times.push(time(|| drop(black_box(reduced()))));
        }
        let (whole, reduced) = (median(whole_times), median(reduced_times));
        println!(
            "{width} x {height} to {side_px}: whole {:.1} ms, resized {:.1} ms, ratio {:.2}; mean difference {difference:.2} of 255",
            whole.as_secs_f64() * 1e3,
            reduced.as_secs_f64() * 1e3,
            reduced.as_secs_f64() / whole.as_secs_f64(),
        );
    }
}

fn mean_difference(one: &RgbImage, other: &RgbImage) -> f64 {
    one.iter().zip(other.iter()).map(|(&a, &b)| f64::from(a.abs_diff(b))).sum::<f64>() / one.len() as f64
}

fn time(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Noise of all scales, the larger ones stronger, as in a photograph.
fn texture() -> Vec<u8> {
    let mut state = 1_u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut sums = vec![0.0_f32; SIZE.pixels() as usize * 3];
    for octave in 1..9 {
        let (width, height) = (SIZE.width >> octave, SIZE.height >> octave);
        let coarse: Vec<u8> = (0..width * height * 3).map(|_| noise()).collect();
        let coarse = RgbImage::from_raw(width, height, coarse).expect("three bytes a pixel");
        let smooth = resize(&coarse, SIZE).expect("a size");
        let weight = 0.05 * octave as f32;
        sums.iter_mut().zip(smooth.iter()).for_each(|(sum, &value)| *sum += weight * (f32::from(value) - 128.0));
    }
    let bytes = sums.into_iter().map(|sum| (sum + 128.0).clamp(0.0, 255.0) as u8).collect();
    let picture = RgbImage::from_raw(SIZE.width, SIZE.height, bytes).expect("three bytes a pixel");
    let mut file = Cursor::new(Vec::new());
    picture.write_with_encoder(JpegEncoder::new_with_quality(&mut file, 85)).expect("a JPEG holds RGB");
    file.into_inner()
}
