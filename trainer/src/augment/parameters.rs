//! The random numbers behind a view, drawn on the CPU from a seeded generator.

use rand::seq::SliceRandom;
use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::colour::{Jitter, JitterStep};
use super::{ImageSize, StepRandom};

/// Options of random views; the defaults are MoCo-v2's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AugmentOptions {
    /// Area of the crop as a share of the image, least and most.
    pub crop_area: [f64; 2],
    /// Width over height of the crop, least and most.
    pub crop_ratio: [f64; 2],
    /// Probability of colour jitter.
    pub jitter_probability: f64,
    /// Brightness is scaled by 1 ± this.
    pub brightness: f64,
    /// Contrast is scaled by 1 ± this.
    pub contrast: f64,
    /// Saturation is scaled by 1 ± this.
    pub saturation: f64,
    /// Hue is turned by ± this share of the circle.
    pub hue: f64,
    /// Probability of losing all colour.
    pub grey_probability: f64,
    /// Probability of a Gaussian blur.
    pub blur_probability: f64,
    /// Standard deviation of the blur in pixels of the view, least and most.
    pub blur_sigma_px: [f64; 2],
    /// Probability of a horizontal flip.
    pub flip_probability: f64,
}

impl Default for AugmentOptions {
    fn default() -> Self {
        Self {
            crop_area: [0.2, 1.0],
            crop_ratio: [3.0 / 4.0, 4.0 / 3.0],
            jitter_probability: 0.8,
            brightness: 0.4,
            contrast: 0.4,
            saturation: 0.4,
            hue: 0.1,
            grey_probability: 0.2,
            blur_probability: 0.5,
            blur_sigma_px: [0.1, 2.0],
            flip_probability: 0.5,
        }
    }
}

/// An option that is not valid.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum AugmentError {
    /// It is no probability.
    #[error("augment.{option} is {value}; a probability lies within [0, 1]")]
    Probability {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: f64,
    },
    /// It is no range.
    #[error("augment.{option} is [{}, {}]; expected a positive range, the lesser first", .range[0], .range[1])]
    Range {
        /// Its name.
        option: &'static str,
        /// Its value.
        range: [f64; 2],
    },
    /// It is too strong, or negative.
    #[error("augment.{option} is {value}; expected [0, {most}]")]
    Strength {
        /// Its name.
        option: &'static str,
        /// Its value.
        value: f64,
        /// The greatest one.
        most: f64,
    },
}

impl AugmentOptions {
    /// Checks that ranges are ordered and probabilities lie within [0, 1].
    ///
    /// # Errors
    /// Names the first invalid option.
    pub fn check(&self) -> Result<(), AugmentError> {
        let probabilities = [
            ("jitter_probability", self.jitter_probability),
            ("grey_probability", self.grey_probability),
            ("blur_probability", self.blur_probability),
            ("flip_probability", self.flip_probability),
        ];
        for (option, value) in probabilities {
            if !(0.0..=1.0).contains(&value) {
                return Err(AugmentError::Probability { option, value });
            }
        }
        let ranges = [
            ("crop_area", self.crop_area, 1.0),
            ("crop_ratio", self.crop_ratio, f64::MAX),
            ("blur_sigma_px", self.blur_sigma_px, f64::MAX),
        ];
        for (option, range @ [low, high], most) in ranges {
            if !(0.0 < low && low <= high && high <= most) {
                return Err(AugmentError::Range { option, range });
            }
        }
        let strengths = [
            ("brightness", self.brightness, 1.0),
            ("contrast", self.contrast, 1.0),
            ("saturation", self.saturation, 1.0),
            ("hue", self.hue, 0.5),
        ];
        for (option, value, most) in strengths {
            if !(0.0..=most).contains(&value) {
                return Err(AugmentError::Strength { option, value, most });
            }
        }
        Ok(())
    }
}

/// Crop windows in pixels of the canvas, one entry an image.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Crops {
    /// Left edge.
    pub x: Vec<f32>,
    /// Top edge.
    pub y: Vec<f32>,
    /// Width.
    pub width: Vec<f32>,
    /// Height.
    pub height: Vec<f32>,
}

/// The random parameters of one view of each image of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewParameters {
    /// Crop windows.
    pub crops: Crops,
    /// `true` for views that are mirrored.
    pub flips: Vec<bool>,
    /// Colour jitter.
    pub jitter: Jitter,
    /// 1 where a view loses its colour, else 0.
    pub greys: Vec<f32>,
    /// Standard deviation of the blur in pixels of the view; 0 is none.
    pub blur_sigmas_px: Vec<f32>,
}

impl ViewParameters {
    /// Draws one view of each image; the images have been resized to canvases `canvas_px` wide and high.
    pub fn draw(options: &AugmentOptions, sizes: &[ImageSize], canvas_px: u32, random: &mut StepRandom) -> Self {
        let mut parameters = Self::identity(&[], canvas_px);
        parameters.jitter.order = random_order(&mut random.batch);
        for (&size, rng) in sizes.iter().zip(&mut random.images) {
            parameters.push(options, size, canvas_px, rng);
        }
        parameters
    }

    fn push(&mut self, options: &AugmentOptions, size: ImageSize, canvas_px: u32, rng: &mut impl Rng) {
        let window = draw_crop(options, size, rng);
        self.push_crop(window, size, canvas_px);
        let jittered = rng.random_bool(options.jitter_probability);
        let mut factor = |strength: f64| {
            let factor = rng.random_range(-strength..=strength);
            if jittered { factor as f32 } else { 0.0 }
        };
        let jitter = &mut self.jitter;
        jitter.brightness.push(1.0 + factor(options.brightness));
        jitter.contrast.push(1.0 + factor(options.contrast));
        jitter.saturation.push(1.0 + factor(options.saturation));
        jitter.hue.push(factor(options.hue));
        self.greys.push(f32::from(rng.random_bool(options.grey_probability)));
        let blurred = rng.random_bool(options.blur_probability);
        let [low, high] = options.blur_sigma_px;
        let sigma = rng.random_range(low..=high) as f32;
        self.blur_sigmas_px.push(if blurred { sigma } else { 0.0 });
        self.flips.push(rng.random_bool(options.flip_probability));
    }

    /// Views of whole images, resized only.
    pub fn identity(sizes: &[ImageSize], canvas_px: u32) -> Self {
        let n = sizes.len();
        let mut parameters = Self {
            crops: Crops::default(),
            flips: vec![false; n],
            jitter: Jitter::identity(n),
            greys: vec![0.0; n],
            blur_sigmas_px: vec![0.0; n],
        };
        for &size in sizes {
            parameters.push_crop([0, 0, size.width, size.height], size, canvas_px);
        }
        parameters
    }

    fn push_crop(&mut self, [x, y, width, height]: [u32; 4], size: ImageSize, canvas_px: u32) {
        let (along_x, along_y) = (canvas_px as f32 / size.width as f32, canvas_px as f32 / size.height as f32);
        self.crops.x.push(x as f32 * along_x);
        self.crops.y.push(y as f32 * along_y);
        self.crops.width.push(width as f32 * along_x);
        self.crops.height.push(height as f32 * along_y);
    }
}

/// Draws `[x, y, width, height]` in pixels of the image as torchvision does: at most ten random areas
/// and ratios until one fits, then the largest centred window of an allowed ratio.
fn draw_crop(options: &AugmentOptions, size: ImageSize, rng: &mut impl Rng) -> [u32; 4] {
    let (width, height) = (f64::from(size.width), f64::from(size.height));
    let [least, most] = options.crop_ratio;
    for _ in 0..10 {
        let area = width * height * rng.random_range(options.crop_area[0]..=options.crop_area[1]);
        let ratio = rng.random_range(least.ln()..=most.ln()).exp();
        let (w, h) = ((area * ratio).sqrt().round() as u32, (area / ratio).sqrt().round() as u32);
        if (1..=size.width).contains(&w) && (1..=size.height).contains(&h) {
            let x = rng.random_range(0..=size.width - w);
            let y = rng.random_range(0..=size.height - h);
            return [x, y, w, h];
        }
    }
    let ratio = (width / height).clamp(least, most);
    let w = (height * ratio).round().min(width) as u32;
    let h = (width / ratio).round().min(height) as u32;
    [(size.width - w) / 2, (size.height - h) / 2, w, h]
}

fn random_order(rng: &mut impl Rng) -> [JitterStep; 4] {
    let mut order = [JitterStep::Brightness, JitterStep::Contrast, JitterStep::Saturation, JitterStep::Hue];
    order.shuffle(rng);
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    proptest! {
        #[test]
        fn crops_lie_inside_and_keep_to_their_area(seed: u64, width in 1_u32..600, height in 1_u32..600) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let options = AugmentOptions::default();
            let [x, y, w, h] = draw_crop(&options, ImageSize { width, height }, &mut rng);
            prop_assert!(w >= 1 && h >= 1 && x + w <= width && y + h <= height);
        }
    }

    #[test]
    fn a_range_the_wrong_way_round_is_refused_by_name() {
        let options = AugmentOptions { crop_area: [1.0, 0.2], ..AugmentOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("augment.crop_area"));
        let options = AugmentOptions { flip_probability: f64::NAN, ..AugmentOptions::default() };
        assert!(options.check().unwrap_err().to_string().contains("augment.flip_probability"));
        assert_eq!(AugmentOptions::default().check(), Ok(()));
    }
}
