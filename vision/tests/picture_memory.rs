//! Memory of decoding: no picture, whole or damaged, takes more than its probe states. That of a JPEG at a fraction of its
//! size is taken by a C library, and not counted.
//!
//! One test in a binary of its own, because the counting allocator serves the whole process.

use std::io::Cursor;

use densecl_vision::image::{DecodeLimits, RgbImage, decode, probe};
use image::{DynamicImage, ImageFormat, Rgb};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 2_000_000 };
/// Buffers of the size that a damaged WebP states for its partitions, allocated but never written, so that no page of
/// them is taken.
const UNTOUCHED_BYTES: u64 = 18 << 20;

fn files() -> Vec<(ImageFormat, Vec<u8>)> {
    let noise = |x: u32, y: u32| (x.wrapping_mul(2_654_435_761) ^ y.wrapping_mul(40_503)) >> 13;
    let rgb = RgbImage::from_fn(301, 207, |x, y| Rgb([x as u8, y as u8, noise(x, y) as u8]));
    let rgb = DynamicImage::ImageRgb8(rgb);
    let modes =
        [rgb.to_luma8().into(), rgb.to_rgba8().into(), rgb.to_rgb16().into(), rgb.to_luma_alpha16().into(), rgb];
    let formats =
        [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp, ImageFormat::Tiff];
    let mut files = Vec::new();
    for format in formats {
        for picture in &modes {
            let mut file = Cursor::new(Vec::new());
            // Not every format has every mode.
            if picture.write_to(&mut file, format).is_ok() {
                files.push((format, file.into_inner()));
            }
        }
    }
    files
}

#[test]
fn decoding_takes_no_more_memory_than_the_probe_states() {
    let files = files();
    assert!(files.len() >= 15, "{}", files.len());
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (format, file) in &files {
        for round in 0..200 {
            let mut damaged = file.clone();
            // The first round is the file as it is.
            for _ in 0..round.min(3) {
                let end = if random(2) == 0 { 64 } else { damaged.len() };
                let place = random(end);
                damaged[place] = random(256) as u8;
            }
            check(*format, &damaged);
        }
    }
}

fn check(format: ImageFormat, file: &[u8]) {
    let stated = probe(file, &LIMITS).map_or(1 << 12, |header| header.peak_bytes);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let result = decode(file, &LIMITS);
    let taken = (ALLOCATOR.peak_usage() - before) as u64;
    let untouched = if format == ImageFormat::WebP && result.is_err() { UNTOUCHED_BYTES } else { 0 };
    assert!(taken <= stated + untouched, "{format:?}: {taken} bytes taken, {stated} stated");
}
