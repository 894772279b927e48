//! The random numbers of one step.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Words of a step's stream between the numbers of one image and those of the next.
const WORDS_OF_IMAGE: u128 = 1 << 20;

/// The random numbers of one step, for the batch and for each image: a function of the run's seed, the
/// step and the image's index in the batch. Those of an image do not depend on the other images, so
/// that a process draws only those of its share.
#[derive(Clone, Debug)]
pub struct StepRandom {
    pub(super) batch: ChaCha8Rng,
    pub(super) images: Vec<ChaCha8Rng>,
}

impl StepRandom {
    /// The random numbers of step `step`, for the batch and its images at these indices.
    pub fn new(seed: u64, step: u64, indices: Range<usize>) -> Self {
        let mut batch = ChaCha8Rng::seed_from_u64(seed);
        batch.set_stream(step);
        let of_image = |index: usize| {
            let mut rng = batch.clone();
            rng.set_word_pos((index as u128 + 1) * WORDS_OF_IMAGE);
            rng
        };
        let images = indices.map(of_image).collect();
        Self { batch, images }
    }

    /// Draws a permutation of 0 to `n` − 1.
    pub fn permutation(&mut self, n: usize) -> Vec<i64> {
        let mut order: Vec<i64> = (0..n as i64).collect();
        order.shuffle(&mut self.batch);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::augment::{AugmentOptions, ImageSize, ViewParameters};

    #[test]
    fn an_image_gets_the_same_view_in_any_process() {
        let sizes: Vec<_> = (0..6).map(|i| ImageSize { width: 300 - 40 * i, height: 64 + 9 * i }).collect();
        let draw = |indices: Range<usize>| {
            let mut random = StepRandom::new(3, 11, indices.clone());
            let views = [(); 2]
                .map(|()| ViewParameters::draw(&AugmentOptions::default(), &sizes[indices.clone()], 96, &mut random));
            (views, random.permutation(6))
        };
        let ((whole, order), (share, order_of_share)) = (draw(0..6), draw(2..5));
        assert_eq!(order, order_of_share);
        for (whole, share) in whole.iter().zip(&share) {
            assert_eq!(whole.crops.x[2..5], share.crops.x);
            assert_eq!(whole.jitter.hue[2..5], share.jitter.hue);
            assert_eq!(whole.jitter.order, share.jitter.order);
            assert_eq!(whole.blur_sigmas_px[2..5], share.blur_sigmas_px);
        }
        assert_ne!(whole[0].crops, whole[1].crops, "the views of an image differ");
        let [first, second] = [&whole[0].crops.width[2..4], &whole[1].crops.width[2..4]];
        assert!(
            first[0].to_bits() != first[1].to_bits() && first[0].to_bits() != second[1].to_bits(),
            "and of two images"
        );
    }
}
