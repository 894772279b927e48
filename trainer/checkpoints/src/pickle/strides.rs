//! Positions of a tensor's elements in its storage.

use super::{Storage, Tensor};

/// Bytes that a view may take although its storage is smaller: constants repeated by `expand`.
const MAX_EXPANDED_BYTES: u64 = 1 << 20;

impl Tensor {
    /// Checks that all elements lie in the storage, and are not many more than it has.
    pub(super) fn check(&self, storage: &Storage) -> Result<(), String> {
        let Self { shape, strides, offset, .. } = self;
        if shape.len() != strides.len() {
            return Err(format!("its size is {shape:?} and its strides are {strides:?}"));
        }
        let too_large = || format!("its size is {shape:?}");
        let count = element_count(shape).ok_or_else(too_large)?;
        if count == 0 {
            return Ok(());
        }
        let last = shape
            .iter()
            .zip(strides)
            .try_fold(*offset, |last, (&length, &stride)| last.checked_add((length - 1).checked_mul(stride)?));
        if last.is_none_or(|last| last >= storage.len) {
            let len = storage.len;
            return Err(format!(
                "its size is {shape:?}, its strides are {strides:?} and its offset is {offset}, which reaches past its \
                 storage of {len} elements"
            ));
        }
        let bytes = count.checked_mul(storage.dtype.size()).ok_or_else(too_large)?;
        if count > storage.len && bytes > MAX_EXPANDED_BYTES {
            return Err(format!("it repeats {} stored elements to a size of {shape:?}", storage.len));
        }
        Ok(())
    }
}

/// Product of the lengths, if it is a number at all.
pub(crate) fn element_count(shape: &[u64]) -> Option<u64> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape.iter().try_fold(1_u64, |count, &length| count.checked_mul(length))
}

/// Strides of elements in a row, the last axis closest.
pub(crate) fn row_major(shape: &[u64]) -> Vec<u64> {
    let mut strides = packed(shape.iter().rev());
    strides.reverse();
    strides
}

/// Strides of elements in a row, the first axis closest, as Fortran has them.
pub(crate) fn column_major(shape: &[u64]) -> Vec<u64> {
    packed(shape.iter())
}

fn packed<'a>(shape: impl Iterator<Item = &'a u64>) -> Vec<u64> {
    let stride = |next: &mut u64, &length: &u64| {
        let stride = *next;
        // The product only goes past the largest number where an axis of length zero comes later.
        *next = next.saturating_mul(length);
        Some(stride)
    };
    shape.scan(1, stride).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::pickle::{StorageLocation, StringData};

    fn check(len: u64, offset: u64, shape: &[u64], strides: &[u64]) -> Result<(), String> {
        let location = StorageLocation::Data(StringData::Raw(0..len * 4));
        let tensor = Tensor { shape: shape.to_vec(), strides: strides.to_vec(), offset, storage: 0 };
        tensor.check(&Storage { dtype: DType::Float32, len, location })
    }

    #[test]
    fn views_stay_in_their_storage() {
        check(6, 0, &[2, 3], &[3, 1]).unwrap();
        check(6, 0, &[3, 2], &[1, 3]).unwrap();
        check(6, 5, &[], &[]).unwrap();
        check(0, 9, &[0, 7], &[7, 1]).unwrap();
        check(1, 0, &[64], &[0]).unwrap();
        for (offset, shape, strides) in [
            (1, &[2, 3][..], &[3, 1][..]),
            (6, &[], &[]),
            (0, &[2, 3], &[1]),
            (0, &[2], &[u64::MAX]),
            (u64::MAX, &[2], &[1]),
            (0, &[u64::MAX, u64::MAX], &[0, 0]),
            (0, &[1 << 40], &[0]),
        ] {
            assert!(check(6, offset, shape, strides).is_err(), "{offset} {shape:?} {strides:?}");
        }
    }

    #[test]
    fn strides_of_rows_and_columns() {
        assert_eq!(row_major(&[2, 3, 4]), [12, 4, 1]);
        assert_eq!(column_major(&[2, 3, 4]), [1, 2, 6]);
        assert!(row_major(&[]).is_empty());
        assert_eq!(element_count(&[u64::MAX, 2, 0]), Some(0));
        assert_eq!(element_count(&[u64::MAX, 2]), None);
    }
}
