//! Many tensors as a few flat ones, since a collective has a price of its own.

use tch::{Kind, Tensor};

/// Bytes of a bucket, at which a collective's own price no longer counts; as in PyTorch.
pub(super) const BYTES: usize = 25 << 20;

/// Tensors of one type that travel together.
#[derive(Debug)]
pub(super) struct Bucket {
    kind: Kind,
    bytes: usize,
    tensors: Vec<Tensor>,
}

/// Tensors in buckets of at most `bytes`, the last ones first: of gradients these are the first that
/// are computed. A larger tensor has a bucket to itself.
pub(super) fn fill(tensors: &[Tensor], bytes: usize) -> Vec<Bucket> {
    let mut buckets: Vec<Bucket> = Vec::new();
    for tensor in tensors.iter().rev() {
        let (kind, size) = (tensor.kind(), tensor.numel() * tensor.kind().elt_size_in_bytes());
        let open = buckets.iter_mut().rfind(|bucket| bucket.kind == kind).filter(|bucket| bucket.bytes + size <= bytes);
        let tensor = tensor.shallow_clone();
        match open {
            Some(bucket) => {
                bucket.bytes += size;
                bucket.tensors.push(tensor);
            }
            None => buckets.push(Bucket { kind, bytes: size, tensors: vec![tensor] }),
        }
    }
    buckets
}

impl Bucket {
    /// All values one after the other.
    pub(super) fn flatten(&self) -> Tensor {
        let flat: Vec<_> = self.tensors.iter().map(|tensor| tensor.reshape([-1])).collect();
        Tensor::cat(&flat, 0)
    }

    /// Writes such values to where they came from.
    pub(super) fn put_back(&self, flat: &Tensor) {
        let mut first = 0;
        for tensor in &self.tensors {
            let count = tensor.numel() as i64;
            tensor.shallow_clone().copy_(&flat.narrow(0, first, count).view(tensor.size().as_slice()));
            first += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    #[test]
    fn values_come_back_to_where_they_were_whatever_the_buckets() {
        let sizes: [&[i64]; 5] = [&[3, 2], &[], &[4, 1, 2], &[100], &[5]];
        let kinds = [Kind::Double, Kind::Float, Kind::Double, Kind::Double, Kind::Float];
        let make = |i: usize| Tensor::arange(sizes[i].iter().product::<i64>(), (kinds[i], Device::Cpu)).view(sizes[i]);
        for (bytes, count) in [(1, 5), (64, 4), (1 << 20, 2)] {
            // One of them lies in memory in another order.
            let mut tensors: Vec<_> = (0..5).map(make).collect();
            tensors[0] = make(0).transpose(0, 1).contiguous().transpose(0, 1);
            let buckets = fill(&tensors, bytes);
            assert_eq!(buckets.len(), count);
            assert_eq!(buckets.iter().map(|bucket| bucket.tensors.len()).sum::<usize>(), 5);
            for bucket in buckets {
                bucket.put_back(&(bucket.flatten() + 1.0));
            }
            for (i, tensor) in tensors.iter().enumerate() {
                assert_eq!(tensor, &(make(i) + 1.0));
            }
        }
    }
}
