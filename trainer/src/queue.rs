//! A ring of negatives.

use tch::{Device, Kind, Tensor};

use crate::network::normalize;

/// `K` unit vectors `[K, D]`, overwritten in order, oldest first.
#[derive(Debug)]
pub struct Queue {
    vectors: Tensor,
    pointer: i64,
}

impl Queue {
    /// Random unit vectors from libtorch's generator.
    pub fn random(length: i64, dim: i64, kind: Kind, device: Device) -> Self {
        Self { vectors: normalize(&Tensor::randn([length, dim], (kind, device))), pointer: 0 }
    }

    /// All vectors, `[K, D]`.
    pub fn vectors(&self) -> &Tensor {
        &self.vectors
    }

    /// The row that is overwritten next.
    pub fn pointer(&self) -> i64 {
        self.pointer
    }

    /// Replaces the contents.
    ///
    /// # Errors
    /// If the shape differs or the pointer lies outside.
    pub fn load(&mut self, vectors: &Tensor, pointer: i64) -> Result<(), String> {
        if vectors.size() != self.vectors.size() {
            return Err(format!("a queue is {:?}, expected {:?}", vectors.size(), self.vectors.size()));
        }
        if !(0..self.vectors.size()[0]).contains(&pointer) {
            return Err(format!("a queue's pointer is {pointer}, outside the queue"));
        }
        self.vectors.copy_(vectors);
        self.pointer = pointer;
        Ok(())
    }

    /// Overwrites the oldest vectors with `keys` `[N, D]`.
    ///
    /// # Errors
    /// If N does not divide the length, so that a batch would wrap around.
    pub fn push(&mut self, keys: &Tensor) -> Result<(), String> {
        let (length, batch) = (self.vectors.size()[0], keys.size()[0]);
        if batch == 0 || length % batch != 0 || self.pointer + batch > length {
            return Err(format!("a queue of {length} is not a multiple of the batch of {batch}"));
        }
        tch::no_grad(|| self.vectors.narrow(0, self.pointer, batch).copy_(keys));
        self.pointer = (self.pointer + batch) % length;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwrites_the_oldest() {
        let mut queue = Queue::random(4, 2, Kind::Double, Device::Cpu);
        let keys = |value: f64| Tensor::full([2, 2], value, (Kind::Double, Device::Cpu));
        for value in [1.0, 2.0, 3.0] {
            queue.push(&keys(value)).unwrap();
        }
        assert_eq!(queue.pointer(), 2);
        assert_eq!(queue.vectors(), &Tensor::cat(&[keys(3.0), keys(2.0)], 0));
    }

    #[test]
    fn starts_with_unit_vectors_and_refuses_what_would_wrap() {
        let mut queue = Queue::random(4, 8, Kind::Double, Device::Cpu);
        let norms = queue.vectors().norm_scalaropt_dim(2, [1].as_slice(), false);
        assert!((norms - 1.0).abs().max().double_value(&[]) < 1e-12);
        assert!(queue.push(&Tensor::zeros([3, 8], (Kind::Double, Device::Cpu))).is_err());
        assert!(queue.load(&Tensor::zeros([4, 8], (Kind::Double, Device::Cpu)), 4).is_err());
    }
}
