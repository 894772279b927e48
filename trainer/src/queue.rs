//! A ring of negatives.

use tch::{Device, Kind, Tensor};

use crate::network::normalize;

/// Vectors that do not fit a queue.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The contents have another shape.
    #[error("a queue is {found:?}, expected {expected:?}")]
    Shape {
        /// Their shape.
        found: Vec<i64>,
        /// The queue's.
        expected: Vec<i64>,
    },
    /// The pointer lies outside.
    #[error("a queue's pointer is {0}, outside the queue")]
    Pointer(i64),
    /// A batch would wrap around.
    #[error("a queue of {length} is not a multiple of the batch of {batch}")]
    Batch {
        /// Length of the queue.
        length: i64,
        /// Number of keys.
        batch: i64,
    },
}

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
    pub fn load(&mut self, vectors: &Tensor, pointer: i64) -> Result<(), QueueError> {
        if vectors.size() != self.vectors.size() {
            return Err(QueueError::Shape { found: vectors.size(), expected: self.vectors.size() });
        }
        if !(0..self.vectors.size()[0]).contains(&pointer) {
            return Err(QueueError::Pointer(pointer));
        }
        self.vectors.copy_(vectors);
        self.pointer = pointer;
        Ok(())
    }

    /// Overwrites the oldest vectors with `keys` `[N, D]`.
    ///
    /// # Errors
    /// If N does not divide the length, so that a batch would wrap around.
    pub fn push(&mut self, keys: &Tensor) -> Result<(), QueueError> {
        let (length, batch) = (self.vectors.size()[0], keys.size()[0]);
        if batch == 0 || length % batch != 0 || self.pointer + batch > length {
            return Err(QueueError::Batch { length, batch });
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
        let zeros = |count| Tensor::zeros([count, 8], (Kind::Double, Device::Cpu));
        assert_eq!(queue.push(&zeros(3)), Err(QueueError::Batch { length: 4, batch: 3 }));
        assert_eq!(queue.load(&zeros(4), 4), Err(QueueError::Pointer(4)));
        let shape = QueueError::Shape { found: vec![3, 8], expected: vec![4, 8] };
        assert_eq!(queue.load(&zeros(3), 0), Err(shape));
    }
}
