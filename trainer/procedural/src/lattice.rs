//! Gradient noise over a table of random directions, and its fractal sums.
//!
//! K. Perlin, "Improving noise", SIGGRAPH 2002, with a two-dimensional table instead of a hash: the
//! period of 128 cells does not show because every octave is turned and shifted.

use std::fmt;
use std::sync::LazyLock;

use crate::elementary::{cos_turns, floor, sin_turns};
use crate::random::{Purpose, Stream};

const SIDE: usize = 128;
const MASK: i32 = SIDE as i32 - 1;

static GRADIENTS: LazyLock<Box<[[f32; 2]; SIDE * SIDE]>> = LazyLock::new(|| {
    let mut stream = Stream::new(Purpose::Lattice, 0, 0);
    let mut table = Box::new([[0.0; 2]; SIDE * SIDE]);
    for gradient in table.iter_mut() {
        let turns = stream.unit();
        // 1.6 brings the noise's extremes near ±1.
        *gradient = [1.6 * cos_turns(turns), 1.6 * sin_turns(turns)];
    }
    table
});

/// A handle on the shared table, so that inner loops skip the check that it is ready.
#[derive(Clone, Copy)]
pub(crate) struct Lattice(&'static [[f32; 2]; SIDE * SIDE]);

/// The table is the same for all and too long to print.
impl fmt::Debug for Lattice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Lattice")
    }
}

impl Lattice {
    /// The shared table.
    pub(crate) fn new() -> Self {
        Self(&GRADIENTS)
    }

    /// Smooth noise in about ±1, mean 0, features one unit wide.
    #[inline]
    pub(crate) fn noise(self, x: f32, y: f32) -> f32 {
        let (ix, iy) = (floor(x), floor(y));
        let (fx, fy) = (x - ix as f32, y - iy as f32);
        let (x0, x1) = ((ix & MASK) as usize, ((ix + 1) & MASK) as usize);
        let (y0, y1) = ((iy & MASK) as usize * SIDE, ((iy + 1) & MASK) as usize * SIDE);
        let corner = |at: usize, dx: f32, dy: f32| {
            let gradient = self.0[at];
            gradient[0] * dx + gradient[1] * dy
        };
        let (a, b) = (corner(y0 + x0, fx, fy), corner(y0 + x1, fx - 1.0, fy));
        let (c, d) = (corner(y1 + x0, fx, fy - 1.0), corner(y1 + x1, fx - 1.0, fy - 1.0));
        let sx = fx * fx * fx * (fx * (fx * 6.0 - 15.0) + 10.0);
        let sy = fy * fy * fy * (fy * (fy * 6.0 - 15.0) + 10.0);
        let top = a + (b - a) * sx;
        let bottom = c + (d - c) * sx;
        top + (bottom - top) * sy
    }

    /// Sum of octaves, each twice as fine and `gain` times as strong; about ±1.
    #[inline]
    pub(crate) fn fractal(self, x: f32, y: f32, octaves: Octaves) -> f32 {
        let (mut x, mut y, mut amplitude, mut sum) = (x, y, octaves.first, 0.0);
        for _ in 0..octaves.count {
            sum += amplitude * self.noise(x, y);
            amplitude *= octaves.gain;
            (x, y) = next_octave(x, y);
        }
        sum
    }

    /// Like [`Self::fractal`] with creases where each octave crosses zero; in about `[0, 1]`.
    #[inline]
    pub(crate) fn ridged(self, x: f32, y: f32, octaves: Octaves) -> f32 {
        let (mut x, mut y, mut amplitude, mut sum) = (x, y, octaves.first, 0.0);
        for _ in 0..octaves.count {
            sum += amplitude * (1.0 - 2.0 * self.noise(x, y).abs());
            amplitude *= octaves.gain;
            (x, y) = next_octave(x, y);
        }
        0.5 + 0.5 * sum
    }
}

/// Doubles the frequency, turned by about 37 degrees and shifted off the lattice.
#[inline]
fn next_octave(x: f32, y: f32) -> (f32, f32) {
    (1.6 * x - 1.2 * y + 17.31, 1.2 * x + 1.6 * y + 5.73)
}

/// Number of octaves of a sum, and their weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Octaves {
    count: u32,
    gain: f32,
    first: f32,
}

impl Octaves {
    /// The octaves that stay above two and a half pixels, at least one and at most `most`.
    /// `pixel` is the size of a pixel in the noise's own units.
    pub(crate) fn new(most: u32, gain: f32, pixel: f32) -> Self {
        let mut wavelength = 1.0;
        let mut count = 1;
        while count < most && wavelength * 0.5 > 2.5 * pixel {
            wavelength *= 0.5;
            count += 1;
        }
        // Keeps the standard deviation of the sum whatever the gain and the count.
        let (mut power, mut amplitude) = (0.0, 1.0_f32);
        for _ in 0..count {
            power += amplitude * amplitude;
            amplitude *= gain;
        }
        Self { count, gain, first: 1.2 / power.sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_smooth_centred_and_bounded() {
        let lattice = Lattice::new();
        let mut sum = 0.0;
        for step in 0..10_000_u16 {
            let (x, y) = (f32::from(step) * 0.0371, f32::from(step) * 0.0913 - 300.0);
            let value = lattice.noise(x, y);
            assert!(value.abs() < 1.3);
            assert!((lattice.noise(x + 1e-3, y) - value).abs() < 2e-2);
            sum += value;
        }
        assert!((sum / 10_000.0).abs() < 0.05);
    }

    #[test]
    fn coarse_pixels_drop_octaves() {
        assert_eq!(Octaves::new(8, 0.5, 1.0).count, 1);
        assert_eq!(Octaves::new(8, 0.5, 0.04).count, 4);
        assert_eq!(Octaves::new(3, 0.5, 1e-6).count, 3);
    }
}
