//! A baseline without a network: patches of pixels as descriptors.

use rayon::prelude::*;

use super::dataset::Picture;
use super::error::FeatureMethodError;
use super::feature_method::FeatureMethod;
use densecl_models::geometry::inference_size;
use densecl_vision::features::FeatureMap;
use densecl_vision::image::{ImageSize, ResizeError, RgbImage, resize};

const PATCH_PX: usize = 32;
/// Samples along a side of a patch; each is the mean of a square of pixels.
const SAMPLES: usize = 8;
const SAMPLE_PX: usize = PATCH_PX / SAMPLES;
const COLORS: usize = 3;

/// RGB patches as a [`FeatureMethod`].
pub struct RgbPatches {
    name: String,
    side_px: u32,
    stride_px: u32,
}

impl RgbPatches {
    /// Patches of images resized to `side_px`, one every `stride_px` pixels, on the same cells as a model.
    pub fn new(side_px: u32, stride_px: u32) -> Self {
        Self { name: format!("RGB patches at {side_px} px"), side_px, stride_px }
    }
}

impl FeatureMethod for RgbPatches {
    fn name(&self) -> &str {
        &self.name
    }

    fn describe(&mut self, picture: &Picture) -> Result<FeatureMap, FeatureMethodError> {
        Ok(rgb_patches(&picture.image, self.side_px, self.stride_px)?)
    }
}

/// A map `[192, h, w]` of patches, with a cell every `stride_px` pixels of the image resized to `side_px` as for a model. A
/// descriptor is the 32×32 pixels around the cell's centre, averaged to 8×8 samples of three colours, less the mean of
/// each colour. Beyond the edge the outermost pixels continue.
///
/// # Errors
/// [`ResizeError`] if the image has no pixels.
#[expect(clippy::missing_panics_doc, reason = "the buffer is made for the shape")]
pub fn rgb_patches(picture: &RgbImage, side_px: u32, stride_px: u32) -> Result<FeatureMap, ResizeError> {
    let resized = resize(picture, inference_size(ImageSize::from(picture.dimensions()), side_px))?;
    let along = |length: u32| (length / stride_px.max(1)).max(1) as usize;
    let (width, height) = (along(resized.width()), along(resized.height()));
    let cells = width * height;
    let patches: Vec<Vec<f32>> =
        (0..cells).into_par_iter().map(|cell| patch(&resized, (cell % width, cell / width), (width, height))).collect();
    let mut data = vec![0.0_f32; SAMPLES * SAMPLES * COLORS * cells]; // [C, H, W]
    for (channel, plane) in data.chunks_exact_mut(cells).enumerate() {
        for (value, patch) in plane.iter_mut().zip(&patches) {
            *value = patch[channel];
        }
    }
    Ok(FeatureMap::new(SAMPLES * SAMPLES * COLORS, height, width, data).expect("the buffer was made for this shape"))
}

/// The descriptor of one cell, colour by colour, row by row.
fn patch(picture: &RgbImage, (column, row): (usize, usize), (width, height): (usize, usize)) -> Vec<f32> {
    let first = |cell: usize, cells: usize, length: u32| {
        ((cell as f64 + 0.5) * f64::from(length) / cells as f64).round() as i64 - PATCH_PX as i64 / 2
    };
    let (left, top) = (first(column, width, picture.width()), first(row, height, picture.height()));
    let mut sums = vec![0.0_f32; SAMPLES * SAMPLES * COLORS];
    for y in 0..PATCH_PX {
        for x in 0..PATCH_PX {
            let inside = |position: i64, length: u32| position.clamp(0, i64::from(length) - 1) as u32;
            let pixel =
                picture.get_pixel(inside(left + x as i64, picture.width()), inside(top + y as i64, picture.height()));
            for (color, &value) in pixel.0.iter().enumerate() {
                sums[(color * SAMPLES + y / SAMPLE_PX) * SAMPLES + x / SAMPLE_PX] += f32::from(value);
            }
        }
    }
    for color in sums.chunks_exact_mut(SAMPLES * SAMPLES) {
        let mean = color.iter().sum::<f32>() / color.len() as f32;
        for value in color {
            *value = (*value - mean) / (SAMPLE_PX * SAMPLE_PX) as f32;
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::image::Rgb;

    #[test]
    fn patches_have_no_mean_and_ignore_brightness() {
        let dark = RgbImage::from_fn(64, 96, |x, y| Rgb([(x * 2) as u8, y as u8, (x + y) as u8 / 2]));
        let bright = RgbImage::from_fn(64, 96, |x, y| Rgb(dark.get_pixel(x, y).0.map(|value| value + 40)));
        let (one, other) = (rgb_patches(&dark, 96, 8).unwrap(), rgb_patches(&bright, 96, 8).unwrap());
        assert_eq!((one.channels(), one.grid().height, one.grid().width), (192, 12, 8));
        assert!(one.data().iter().zip(other.data()).all(|(a, b)| (a - b).abs() < 1e-3));
        let first: f32 = one.matrix().column(20).iter().take(64).sum();
        assert!(first.abs() < 1e-2);
    }
}
