//! The order of images: a function of seed and position, so that a run can be resumed at any step.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The order in which a source is gone through.
#[derive(Debug)]
pub struct Order {
    seed: u64,
    /// `None` for an endless source, whose images follow in order.
    len: Option<u64>,
    shuffled: Option<(u64, Vec<u64>)>,
}

impl Order {
    /// Order for a source of `len` images.
    pub fn new(seed: u64, len: Option<u64>) -> Self {
        Self { seed, len, shuffled: None }
    }

    /// Numbers of the images of batch `step`, where an epoch holds `steps_per_epoch` batches.
    ///
    /// Every epoch has another permutation of a finite source; images that do not fill a batch are left out.
    pub fn batch(&mut self, step: u64, steps_per_epoch: u64, batch: usize) -> Vec<u64> {
        let Some(len) = self.len else {
            let first = step * batch as u64;
            return (first..first + batch as u64).collect();
        };
        let (epoch, index) = (step / steps_per_epoch, (step % steps_per_epoch) as usize);
        if self.shuffled.as_ref().is_none_or(|(shuffled, _)| *shuffled != epoch) {
            self.shuffled = Some((epoch, permutation(self.seed, epoch, len)));
        }
        let order = self.shuffled.as_ref().map_or(&[][..], |(_, order)| order);
        (index * batch..(index + 1) * batch).map(|i| order[i % order.len()]).collect()
    }
}

fn permutation(seed: u64, epoch: u64, len: u64) -> Vec<u64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch);
    let mut order: Vec<u64> = (0..len).collect();
    order.shuffle(&mut rng);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_image_once_and_the_next_differs() {
        let mut order = Order::new(5, Some(12));
        let epoch =
            |order: &mut Order, epoch: u64| (0..3).flat_map(|i| order.batch(epoch * 3 + i, 3, 4)).collect::<Vec<_>>();
        let (first, second) = (epoch(&mut order, 0), epoch(&mut order, 1));
        assert_ne!(first, second);
        let mut sorted = second.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..12).collect::<Vec<_>>());
        assert_eq!(Order::new(5, Some(12)).batch(4, 3, 4), second[4..8], "a position can be jumped to");
    }

    #[test]
    fn an_endless_source_goes_on() {
        assert_eq!(Order::new(0, None).batch(7, 2, 3), [21, 22, 23]);
    }
}
