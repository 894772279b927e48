//! Colour operations on RGB batches `[N, 3, H, W]` in [0, 1], each with one strength an image.
//!
//! They compute what torchvision's functions of the same names compute on float tensors.

use tch::{Kind, Tensor};

use super::column;

/// One of the four jitter operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JitterStep {
    /// Scales all values.
    Brightness,
    /// Scales the distance from the mean grey of the image.
    Contrast,
    /// Scales the distance from each pixel's grey.
    Saturation,
    /// Turns the hue.
    Hue,
}

/// Strengths of the jitter, one entry an image, and the order of the operations.
#[derive(Clone, Debug, PartialEq)]
pub struct Jitter {
    /// The order, the same for the whole batch.
    pub order: [JitterStep; 4],
    /// Factors; 1 changes nothing.
    pub brightness: Vec<f32>,
    /// Factors; 1 changes nothing.
    pub contrast: Vec<f32>,
    /// Factors; 1 changes nothing.
    pub saturation: Vec<f32>,
    /// Shares of the colour circle; 0 changes nothing.
    pub hue: Vec<f32>,
}

impl Jitter {
    /// Changes nothing.
    pub(super) fn identity(n: usize) -> Self {
        let order = [JitterStep::Brightness, JitterStep::Contrast, JitterStep::Saturation, JitterStep::Hue];
        let one = vec![1.0; n];
        Self { order, brightness: one.clone(), contrast: one.clone(), saturation: one, hue: vec![0.0; n] }
    }
}

/// Applies all four operations.
pub(super) fn jitter(images: Tensor, jitter: &Jitter) -> Tensor {
    let device = images.device();
    jitter.order.iter().fold(images, |x, step| match step {
        JitterStep::Brightness => (x * column(&jitter.brightness, device)).clamp_(0.0, 1.0),
        JitterStep::Contrast => {
            let mean = grey(&x).mean_dim([1, 2, 3].as_slice(), true, Kind::Float); // [N, 1, 1, 1]
            blend(&x, &mean, &column(&jitter.contrast, device))
        }
        JitterStep::Saturation => blend(&x, &grey(&x), &column(&jitter.saturation, device)),
        JitterStep::Hue => turn_hue(&x, &column(&jitter.hue, device)),
    })
}

/// Grey where `mask` `[N, 1, 1, 1]` is 1, unchanged where it is 0.
pub(super) fn grey_where(images: &Tensor, mask: &Tensor) -> Tensor {
    images.lerp_tensor(&grey(images), mask)
}

/// Luma of ITU-R BT.601 with torchvision's rounding of the weights: `[N, 1, H, W]`.
fn grey(images: &Tensor) -> Tensor {
    let channel = |c: i64| images.narrow(1, c, 1);
    let mut grey = channel(0) * 0.2989; // [N, 1, H, W]
    grey += channel(1) * 0.587;
    grey += channel(2) * 0.114;
    grey
}

fn blend(images: &Tensor, other: &Tensor, factor: &Tensor) -> Tensor {
    other.lerp_tensor(images, factor).clamp_(0.0, 1.0)
}

/// Adds `shift` `[N, 1, 1, 1]` to the hue in HSV space.
fn turn_hue(images: &Tensor, shift: &Tensor) -> Tensor {
    // Channels behind rows, as they lie in memory after a resampling.
    let rows = images.transpose(1, 2); // [N, H, 3, W]
    let (r, g, b) = (rows.narrow(2, 0, 1), rows.narrow(2, 1, 1), rows.narrow(2, 2, 1)); // [N, H, 1, W]
    let value = r.maximum(&g).maximum(&b); // [N, H, 1, W]
    let chroma = &value - r.minimum(&g).minimum(&b); // [N, H, 1, W]
    // A grey pixel has no hue: any divisor is right, as all differences are 0.
    let scale = chroma.clamp_min(f64::from(f32::MIN_POSITIVE)).reciprocal_(); // [N, H, 1, W]
    // Sixths of the circle, counted from the largest channel.
    let from_red = (&g - &b) * &scale; // [N, H, 1, W]
    let from_green = ((&b - &r) * &scale).g_add_scalar_(2.0); // [N, H, 1, W]
    let from_blue = ((&r - &g) * &scale).g_add_scalar_(4.0); // [N, H, 1, W]
    let sixths = from_green.where_self(&g.eq_tensor(&value), &from_blue); // [N, H, 1, W]
    let sixths = from_red.where_self(&r.eq_tensor(&value), &sixths); // [N, H, 1, W]
    let sixths = (sixths + shift * 6.0).remainder_(6.0); // [N, H, 1, W]
    // Each channel is the value minus a share of the chroma that grows with the distance on the circle
    // from the hues where the channel is largest: red at 0 and 6, green at 2, blue at 4.
    let distance = |from: f64| (&sixths - from).abs_();
    let channel = |mut share: Tensor| &value - share.clamp_(0.0, 1.0) * &chroma;
    let red = channel(2.0 - distance(3.0)); // [N, H, 1, W]
    let [green, blue] = [2.0, 4.0].map(|from| channel(distance(from) - 1.0));
    Tensor::cat(&[red, green, blue], 2).transpose(1, 2) // [N, 3, H, W]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixel(rgb: [f32; 3]) -> Tensor {
        Tensor::from_slice(&rgb).view([1, 3, 1, 1])
    }

    fn values(x: &Tensor) -> Vec<f32> {
        Vec::try_from(x.flatten(0, -1)).unwrap()
    }

    fn assert_close(found: &Tensor, expected: [f32; 3]) {
        for (found, expected) in values(found).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }

    #[test]
    fn a_third_of_the_circle_turns_red_to_green() {
        let third = Tensor::from_slice(&[1.0_f32 / 3.0]).view([1, 1, 1, 1]);
        assert_close(&turn_hue(&pixel([0.8, 0.1, 0.1]), &third), [0.1, 0.8, 0.1]);
        assert_close(&turn_hue(&pixel([0.1, 0.1, 0.8]), &third), [0.8, 0.1, 0.1]);
    }

    #[test]
    fn no_turn_keeps_every_colour() {
        let zero = Tensor::zeros([1, 1, 1, 1], (Kind::Float, tch::Device::Cpu));
        for rgb in [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.2, 0.9, 0.4], [0.7, 0.7, 0.1], [0.3, 0.2, 0.8]] {
            assert_close(&turn_hue(&pixel(rgb), &zero), rgb);
        }
    }

    #[test]
    fn saturation_0_is_grey_and_contrast_0_the_mean() {
        let x = pixel([0.5, 0.25, 1.0]);
        let luma = 0.2989 * 0.5 + 0.587 * 0.25 + 0.114;
        assert_close(&grey_where(&x, &pixel([1.0, 1.0, 1.0])), [luma; 3]);
        let mut steps = Jitter::identity(1);
        steps.contrast = vec![0.0];
        assert_close(&jitter(x, &steps), [luma; 3]);
    }
}
