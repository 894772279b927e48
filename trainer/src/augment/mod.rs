//! Two random views of every image, as batched tensor operations on the training device.
//!
//! Random numbers are drawn on the CPU into [`ViewParameters`]; [`view`] is then a pure function
//! of images and parameters. The order is MoCo-v2's: random resized crop, colour jitter, grey,
//! blur, flip, normalisation (arXiv 2003.04297, section 3). One departure: the order of the four
//! jitter operations is drawn for a batch, not for each image.

mod colour;
mod parameters;
mod random;
mod resample;
#[cfg(test)]
mod torchvision_tests;

pub use parameters::{AugmentError, AugmentOptions, ViewParameters};
pub use random::StepRandom;

/// Width and height of an image before it was resized to the square canvas of its batch.
pub use densecl_vision::image::ImageSize;

use tch::{Device, Tensor};

/// Mean and deviation by which RGB in [0, 1] is normalised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Per-channel mean.
    pub mean: [f32; 3],
    /// Per-channel standard deviation.
    pub std: [f32; 3],
}

impl Normalization {
    /// ImageNet's.
    pub const IMAGENET: Self = Self { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Normalises RGB `[N, 3, H, W]` in [0, 1].
    pub fn apply(&self, images: &Tensor) -> Tensor {
        let channels = |values: &[f32; 3]| Tensor::from_slice(values).view([1, 3, 1, 1]).to_device(images.device());
        let scale = channels(&self.std.map(|std| 1.0 / std));
        let offset = -channels(&self.mean) * &scale; // [1, 3, 1, 1]
        offset.addcmul(images, &scale) // [N, 3, H, W], in one pass
    }
}

/// uint8 canvases `[N, S, S, 3]` → one normalised float32 view of each, `[N, 3, size, size]`.
pub fn view(canvases: &Tensor, parameters: &ViewParameters, size_px: i64, normalization: &Normalization) -> Tensor {
    tch::no_grad(|| {
        let (crops, device) = (&parameters.crops, canvases.device());
        let vertical = resample::crop_rows(&crops.y, &crops.height, None, canvases.size()[1], size_px, device);
        let horizontal =
            resample::crop_rows(&crops.x, &crops.width, Some(&parameters.flips), canvases.size()[2], size_px, device);
        let x = resample::apply_to_canvases(canvases, &vertical, &horizontal).clamp_(0.0, 1.0); // [N, 3, s, s]
        let x = colour::jitter(x, &parameters.jitter); // [N, 3, s, s]
        let x = colour::grey_where(&x, &column(&parameters.greys, device)); // [N, 3, s, s]
        // The crop has also flipped: a flip commutes with the jitter.
        let blur = resample::blur_rows(&parameters.blur_sigmas_px, size_px, device); // [N, s, s]
        let x = resample::apply(&x, &blur, &blur); // [N, 3, s, s]
        normalization.apply(&x).contiguous()
    })
}

/// Per-image numbers as a tensor `[N, 1, 1, 1]`.
fn column(values: &[f32], device: Device) -> Tensor {
    Tensor::from_slice(values).view([-1, 1, 1, 1]).to_device(device)
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn canvases(n: i64, size: i64) -> Tensor {
        tch::manual_seed(3);
        Tensor::randint(256, [n, size, size, 3], (Kind::Uint8, Device::Cpu))
    }

    #[test]
    fn without_any_augmentation_a_view_is_the_image() {
        let images = canvases(2, 32);
        let sizes = [ImageSize { width: 32, height: 32 }; 2];
        let parameters = ViewParameters::identity(&sizes, 32);
        let view = view(&images, &parameters, 32, &Normalization { mean: [0.0; 3], std: [1.0; 3] });
        let expected = images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0;
        assert!((view - expected).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn a_flip_mirrors_the_view() {
        let images = canvases(1, 32);
        let sizes = [ImageSize { width: 32, height: 32 }];
        let mut parameters = ViewParameters::identity(&sizes, 32);
        let plain = view(&images, &parameters, 16, &Normalization::IMAGENET);
        parameters.flips[0] = true;
        let flipped = view(&images, &parameters, 16, &Normalization::IMAGENET);
        assert!((plain.flip([3]) - flipped).abs().max().double_value(&[]) < 1e-5);
    }

    #[test]
    fn views_are_a_function_of_the_seed_and_differ_between_draws() {
        let images = canvases(3, 40);
        let sizes = [ImageSize { width: 40, height: 40 }; 3];
        let draw = |seed| {
            let mut random = StepRandom::new(seed, 0, 0..3);
            let parameters = ViewParameters::draw(&AugmentOptions::default(), &sizes, 40, &mut random);
            view(&images, &parameters, 32, &Normalization::IMAGENET)
        };
        assert_eq!(draw(1), draw(1));
        assert!((draw(1) - draw(2)).abs().mean(Kind::Float).double_value(&[]) > 0.05);
        assert_eq!(draw(1).size(), [3, 3, 32, 32]);
    }
}
