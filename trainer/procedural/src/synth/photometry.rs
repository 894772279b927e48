//! Changes of light and of camera that leave the geometry alone.

use super::view::{Painting, Rgb};
use crate::random::Stream;

/// Brightness of a colour (ITU-R BT.601 weights).
const LUMA: Rgb = [0.299, 0.587, 0.114];
const KERNEL_RADIUS: usize = 4;

/// One camera's rendering of a view, applied in the order of the fields.
#[derive(Debug, Clone)]
pub(super) struct Photometry {
    blur_px: f32,
    white_balance: Rgb,
    brightness: f32,
    contrast: f32,
    gamma: f32,
    saturation: f32,
    /// Tangent of half the hue's turn.
    hue: f32,
    noise: f32,
}

impl Photometry {
    /// Changes nothing.
    pub(super) const NONE: Self = Self {
        blur_px: 0.0,
        white_balance: [1.0; 3],
        brightness: 0.0,
        contrast: 1.0,
        gamma: 1.0,
        saturation: 1.0,
        hue: 0.0,
        noise: 0.0,
    };

    /// A random change. `strength` 1 is about what a change of exposure, lamp and phone does.
    pub(super) fn sample(strength: f32, stream: &mut Stream) -> Self {
        let spread = |amount: f32, stream: &mut Stream| 1.0 + strength * stream.range(-amount, amount);
        Self {
            blur_px: if stream.chance(0.5) { strength * stream.range(0.3, 1.2) } else { 0.0 },
            white_balance: [spread(0.12, stream), spread(0.05, stream), spread(0.12, stream)],
            brightness: strength * stream.range(-0.12, 0.12),
            contrast: spread(0.3, stream),
            gamma: spread(0.3, stream),
            saturation: spread(0.35, stream),
            hue: strength * stream.range(-0.08, 0.08),
            noise: strength * stream.range(0.0, 0.025),
        }
    }

    /// On the way from this change (at 0) to `other` (at 1).
    pub(super) fn towards(&self, other: &Self, time: f32) -> Self {
        let between = |from: f32, to: f32| from + (to - from) * time;
        let [from, to] = [self.white_balance, other.white_balance];
        Self {
            blur_px: between(self.blur_px, other.blur_px),
            white_balance: std::array::from_fn(|c| between(from[c], to[c])),
            brightness: between(self.brightness, other.brightness),
            contrast: between(self.contrast, other.contrast),
            gamma: between(self.gamma, other.gamma),
            saturation: between(self.saturation, other.saturation),
            hue: between(self.hue, other.hue),
            noise: between(self.noise, other.noise),
        }
    }

    /// Takes the view; `stream` gives the noise.
    pub(super) fn apply(&self, view: &mut Painting, stream: &mut Stream) {
        if self.blur_px > 0.0 {
            blur(view, self.blur_px);
        }
        for colour in &mut view.colours {
            *colour = self.develop(*colour);
            if self.noise > 0.0 {
                *colour = colour.map(|channel| channel + self.noise * stream.normal());
            }
        }
    }

    fn develop(&self, colour: Rgb) -> Rgb {
        let toned: Rgb = std::array::from_fn(|c| {
            let lit = colour[c] * self.white_balance[c] + self.brightness;
            let spread = 0.5 + self.contrast * (lit - 0.5);
            power(spread.clamp(0.0, 1.0), self.gamma)
        });
        let grey: f32 = toned.iter().zip(LUMA).map(|(channel, weight)| channel * weight).sum();
        let saturated = toned.map(|channel| grey + self.saturation * (channel - grey));
        if self.hue == 0.0 { saturated } else { turn_hue(saturated, self.hue) }
    }
}

/// `x` to the power `p` for `x` in `[0, 1]`; exact where `p` is 1.
fn power(x: f32, p: f32) -> f32 {
    // Exactly 1 means that nobody asked for a change, and none may come of rounding.
    #[expect(clippy::float_cmp, reason = "the neutral value is set, never computed")]
    let neutral = p == 1.0;
    if neutral { x } else { crate::power(x, p) }
}

/// Turns a colour about the grey axis (Rodrigues' formula), by twice the angle whose tangent is
/// `half_tangent`.
fn turn_hue(colour: Rgb, half_tangent: f32) -> Rgb {
    let norm = 1.0 + half_tangent * half_tangent;
    let (cos, sin) = ((1.0 - half_tangent * half_tangent) / norm, 2.0 * half_tangent / norm);
    let grey = colour.iter().sum::<f32>() / 3.0;
    // The cross product with the unit grey axis is a difference of the two other channels.
    let across = sin / 3.0_f32.sqrt();
    std::array::from_fn(|c| {
        let (next, last) = (colour[(c + 1) % 3], colour[(c + 2) % 3]);
        colour[c] * cos + across * (last - next) + grey * (1.0 - cos)
    })
}

/// Gaussian blur of this standard deviation, separable, the border repeated.
fn blur(view: &mut Painting, sigma_px: f32) {
    let mut kernel = [0.0_f32; KERNEL_RADIUS + 1];
    for (distance, weight) in kernel.iter_mut().enumerate() {
        let scaled = distance as f32 / sigma_px;
        // exp(-x²/2) as a power of 1/e, portable unlike `f32::exp`, and 0 to f32 beyond an x²/2 of 60.
        *weight = crate::power(std::f32::consts::E.recip(), (0.5 * scaled * scaled).min(60.0));
    }
    let total = kernel[0] + 2.0 * kernel[1..].iter().sum::<f32>();
    for weight in &mut kernel {
        *weight /= total;
    }
    let (width, height) = (view.width_px, view.height_px);
    let source = view.colours.clone();
    convolve(&source, &mut view.colours, &kernel, |at, step| {
        let x = (at % width).saturating_add_signed(step).min(width - 1);
        at - at % width + x
    });
    let source = view.colours.clone();
    convolve(&source, &mut view.colours, &kernel, |at, step| {
        let y = (at / width).saturating_add_signed(step).min(height - 1);
        y * width + at % width
    });
}

/// One pass of a symmetric kernel; `neighbour` finds the pixel so many steps away.
fn convolve(source: &[Rgb], target: &mut [Rgb], kernel: &[f32], neighbour: impl Fn(usize, isize) -> usize) {
    for (at, colour) in target.iter_mut().enumerate() {
        let mut sum = source[at].map(|channel| channel * kernel[0]);
        for (distance, &weight) in kernel.iter().enumerate().skip(1) {
            let step = distance as isize;
            let (before, after) = (source[neighbour(at, -step)], source[neighbour(at, step)]);
            for (c, total) in sum.iter_mut().enumerate() {
                *total += weight * (before[c] + after[c]);
            }
        }
        *colour = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn none_changes_nothing() {
        let colours = vec![[0.1, 0.5, 0.9], [0.0, 1.0, 0.3]];
        let mut view = Painting { width_px: 2, height_px: 1, colours: colours.clone() };
        Photometry::NONE.apply(&mut view, &mut Stream::new(Purpose::Sequence, 0, 0));
        for (colour, expected) in view.colours.iter().flatten().zip(colours.iter().flatten()) {
            assert!((colour - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_third_of_a_turn_of_hue_moves_red_to_green() {
        // The tangent of 60 degrees: a turn by 120.
        let [red, green, blue] = turn_hue([1.0, 0.0, 0.0], 3.0_f32.sqrt());
        assert!(red.abs() < 1e-5 && (green - 1.0).abs() < 1e-5 && blue.abs() < 1e-5);
    }

    #[test]
    fn little_blur_changes_little() {
        for sigma_px in [0.01, 0.05, 0.2, 0.3] {
            let mut colours = vec![[0.0; 3]; 81];
            colours[40] = [1.0; 3];
            let mut view = Painting { width_px: 9, height_px: 9, colours };
            blur(&mut view, sigma_px);
            assert!(view.colours[40][0] > 0.98, "{sigma_px}: {}", view.colours[40][0]);
        }
    }

    #[test]
    fn blur_keeps_the_mean_and_spreads_as_much_as_it_says() {
        let side = 21;
        let mut colours = vec![[0.0; 3]; side * side];
        colours[10 * side + 10] = [1.0; 3];
        let mut view = Painting { width_px: side, height_px: side, colours };
        blur(&mut view, 1.2);
        let sum: f32 = view.colours.iter().map(|colour| colour[0]).sum();
        let moment = |(at, colour): (usize, &Rgb)| colour[0] * ((at % side) as f32 - 10.0).powi(2);
        let variance: f32 = view.colours.iter().enumerate().map(moment).sum();
        assert!((sum - 1.0).abs() < 1e-3);
        assert!((variance - 1.44).abs() < 0.05, "{variance}");
    }
}
