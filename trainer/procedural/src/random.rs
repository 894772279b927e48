//! Random streams that are the same on every machine, for ever.
//!
//! A stream is ChaCha8 keyed by what it is for. The distributions are written out here because a
//! library's `random_range` may change its values between versions, and with them every picture.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::elementary::{exp2, log2};

/// Purpose of a stream; part of its key, so that no two purposes share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Layout, shapes, colours and light of one image.
    Scene = 1,
    /// Parameters of one texture program.
    Program = 2,
    /// The gradient lattice all noises share.
    Lattice = 3,
    /// Exposure and development of one image.
    Camera = 5,
    /// Camera positions and photometric changes of a synthetic sequence.
    Sequence = 4,
    /// Layout of a scene whose objects move.
    Stage = 6,
    /// Layout of a scene with figures of known categories.
    Figures = 7,
    /// Paths of objects and camera through a sequence of pictures.
    Motion = 8,
}

/// A random stream with the few distributions that drawing needs.
#[derive(Debug, Clone)]
pub(crate) struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream that `seed` and `index` give for one purpose.
    pub(crate) fn new(purpose: Purpose, seed: u64, index: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..24].copy_from_slice(&(purpose as u64).to_le_bytes());
        Self(ChaCha8Rng::from_seed(key))
    }

    /// 32 random bits.
    pub(crate) fn bits(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// Uniform in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 8) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in `[low, high)`.
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Log-uniform between two positive bounds.
    pub(crate) fn log_range(&mut self, low: f32, high: f32) -> f32 {
        exp2(self.range(log2(low), log2(high)))
    }

    /// About normal, mean 0 and standard deviation 1, within ±3.5: a sum of four uniforms.
    pub(crate) fn normal(&mut self) -> f32 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        (sum - 2.0) * 1.732_05
    }

    /// Uniform in `0..bound`; the bias is below 2^-32 times the bound.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.bits()) * u64::from(bound)) >> 32) as u32
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// An index drawn with probability proportional to its weight.
    pub(crate) fn weighted(&mut self, weights: &[f32]) -> usize {
        let mut left = self.unit() * weights.iter().sum::<f32>();
        for (index, weight) in weights.iter().enumerate() {
            left -= weight;
            if left < 0.0 {
                return index;
            }
        }
        weights.len().saturating_sub(1)
    }
}

/// Mixes a lattice cell and a salt into 32 well-spread bits.
#[inline]
pub(crate) fn hash_cell(x: i32, y: i32, salt: u32) -> u32 {
    let mut h = (x as u32).wrapping_mul(0x9e37_79b1) ^ (y as u32).wrapping_mul(0x85eb_ca77) ^ salt;
    h = (h ^ (h >> 15)).wrapping_mul(0x2c1b_3c6d);
    h = (h ^ (h >> 12)).wrapping_mul(0x297a_2d39);
    h ^ (h >> 15)
}

/// Byte `which` (0 to 3) of a hash as a number in `[0, 1)`.
#[inline]
pub(crate) fn hash_unit(hash: u32, which: u32) -> f32 {
    ((hash >> (8 * which)) & 0xff) as f32 * (1.0 / 256.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_every_part_of_the_key() {
        let first = |purpose, seed, index| {
            let mut stream = Stream::new(purpose, seed, index);
            [stream.bits(), stream.bits(), stream.bits(), stream.bits()]
        };
        let base = first(Purpose::Scene, 1, 2);
        assert_eq!(base, first(Purpose::Scene, 1, 2));
        assert_ne!(base, first(Purpose::Program, 1, 2));
        assert_ne!(base, first(Purpose::Scene, 2, 2));
        assert_ne!(base, first(Purpose::Scene, 1, 3));
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut stream = Stream::new(Purpose::Scene, 0, 0);
        let n = 20_000;
        let normals: Vec<f32> = (0..n).map(|_| stream.normal()).collect();
        let mean = normals.iter().sum::<f32>() / n as f32;
        let variance = normals.iter().map(|x| x * x).sum::<f32>() / n as f32;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05);
        let hits = (0..n).filter(|_| stream.weighted(&[1.0, 3.0]) == 1).count();
        assert!((14_500..15_500).contains(&hits), "{hits}");
        assert!((0..n).all(|_| stream.below(7) < 7));
    }
}
