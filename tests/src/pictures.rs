//! Generated images: deterministic, with a texture in which every position looks different.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

/// A window of an infinite texture of coloured blocks. Overlapping windows of one seed have the same pixels where they
/// overlap.
pub fn texture(seed: u32, (x0, y0): (u32, u32), (width, height): (u32, u32)) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| texel(seed, x0 + x, y0 + y))
}

fn texel(seed: u32, x: u32, y: u32) -> Rgb<u8> {
    let mut value = [0.0_f32; 3];
    // Blocks of 5 to 53 pixels, each with a random colour.
    for (octave, size) in [53, 29, 13, 5].into_iter().enumerate() {
        let block = hash(seed ^ (octave as u32) << 24, x / size, y / size);
        for (channel, value) in value.iter_mut().enumerate() {
            *value += f32::from((block >> (8 * channel)) as u8) / 255.0;
        }
    }
    Rgb(value.map(|sum| (sum * 63.0) as u8))
}

/// Hash of three numbers (an integer finaliser by xor, shift and multiplication).
fn hash(seed: u32, x: u32, y: u32) -> u32 {
    let mut h = seed ^ x.wrapping_mul(0x9E37_79B1) ^ y.wrapping_mul(0x85EB_CA77);
    for multiplier in [0x7FEB_352D, 0x846C_A68B] {
        h = (h ^ (h >> 16)).wrapping_mul(multiplier);
    }
    h ^ (h >> 15)
}

/// Encodes an image as a file.
///
/// # Panics
/// If the format does not support RGB.
pub fn encoded(picture: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture.clone()).write_to(&mut file, format).expect("the format holds RGB");
    file.into_inner()
}

/// Encodes an image as a PNG file.
pub fn png(picture: &RgbImage) -> Vec<u8> {
    encoded(picture, ImageFormat::Png)
}

/// A PNG file that claims to be `width × height` and has no pixels.
pub fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    for (kind, data) in [(b"IHDR", &header[..]), (b"IDAT", &[]), (b"IEND", &[])] {
        file.extend((data.len() as u32).to_be_bytes());
        let checked = [&kind[..], data].concat();
        file.extend(&checked);
        file.extend(crc32(&checked).to_be_bytes());
    }
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg()))
    })
}
