//! The elements of a tensor, read when they are asked for.

use std::borrow::Cow;

use crate::dtype::DType;
use crate::pickle::{Graph, Storage, StorageLocation, StringData, Tensor, TensorId, element_count, row_major};
use crate::source::{ReadError, Source};

/// A tensor's data that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TensorDataError {
    /// The file cannot be read, or ends before the data do.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// An array without data, or text that is not as long as the array.
    #[error("the tensor's data are not whole")]
    Incomplete,
    /// Weights are floating-point numbers.
    #[error("the tensor holds {0}, which weights cannot be")]
    NotFloat(DType),
    /// Weights are kept as float32.
    #[error("the tensor holds {0}, which float32 cannot")]
    TooLarge(f64),
}

/// The elements as float32, row by row.
pub(crate) fn read_f32(graph: &Graph, id: TensorId, source: &Source) -> Result<Vec<f32>, TensorDataError> {
    let tensor = graph.tensor(id).ok_or(TensorDataError::Incomplete)?;
    let storage = graph.storage(tensor.storage);
    let bytes = read(tensor, storage, source)?;
    if storage.dtype == DType::Float64 {
        let numbers = bytes.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes));
        if let Some(number) = numbers.into_iter().find(|n| n.is_finite() && !(*n as f32).is_finite()) {
            return Err(TensorDataError::TooLarge(number));
        }
    }
    storage.dtype.to_f32(&bytes).ok_or(TensorDataError::NotFloat(storage.dtype))
}

/// The elements' bytes, row by row.
pub(crate) fn read(tensor: &Tensor, storage: &Storage, source: &Source) -> Result<Vec<u8>, TensorDataError> {
    let size = storage.dtype.size();
    let count = element_count(&tensor.shape).ok_or(TensorDataError::Incomplete)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    // The view was checked against its storage when it was made: none of this goes past it.
    let steps = tensor.shape.iter().zip(&tensor.strides);
    let last = steps.map(|(length, stride)| (length - 1) * stride).sum::<u64>();
    let (start, span) = (tensor.offset * size, (last + 1) * size);
    let stored = bytes_of(storage, start, span, source)?;
    if tensor.strides == row_major(&tensor.shape) {
        return Ok(stored.into_owned());
    }
    Ok(gather(&stored, tensor, size as usize, count as usize))
}

/// The bytes `start..start + len` of a storage.
fn bytes_of<'a>(storage: &'a Storage, start: u64, len: u64, source: &Source) -> Result<Cow<'a, [u8]>, TensorDataError> {
    let part = |bytes: &'a [u8]| bytes.get(start as usize..(start + len) as usize).ok_or(TensorDataError::Incomplete);
    let whole = storage.len * storage.dtype.size();
    let decoded = |text: &[u8]| {
        let bytes = bytes_of_text(text).filter(|bytes| bytes.len() as u64 == whole);
        let mut bytes = bytes.ok_or(TensorDataError::Incomplete)?;
        bytes.truncate((start + len) as usize);
        Ok(Cow::Owned(bytes.split_off(start as usize)))
    };
    match &storage.location {
        StorageLocation::Data(StringData::Raw(range)) => Ok(Cow::Owned(source.read(range.start + start, len)?)),
        StorageLocation::Data(StringData::Unescaped(bytes)) => part(bytes).map(Cow::Borrowed),
        StorageLocation::Data(StringData::Latin1(range)) => {
            decoded(&source.read(range.start, range.end - range.start)?)
        }
        StorageLocation::Data(StringData::UnescapedLatin1(text)) => decoded(text),
        StorageLocation::Keyed { .. } => Err(TensorDataError::Incomplete),
    }
}

/// The bytes that the characters of UTF-8 text stand for.
fn bytes_of_text(text: &[u8]) -> Option<Vec<u8>> {
    std::str::from_utf8(text).ok()?.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

/// Elements of `size` bytes in the order of the tensor's axes, the last one fastest.
fn gather(stored: &[u8], tensor: &Tensor, size: usize, count: usize) -> Vec<u8> {
    let Tensor { shape, strides, .. } = tensor;
    let mut bytes = Vec::with_capacity(count * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..count {
        bytes.extend_from_slice(&stored[at as usize * size..][..size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_u8(shape: &[u64], strides: &[u64], offset: u64, data: &[u8]) -> Vec<u8> {
        let location = StorageLocation::Data(StringData::Raw(0..data.len() as u64));
        let storage = Storage { dtype: DType::UInt8, len: data.len() as u64, location };
        let tensor = Tensor { shape: shape.to_vec(), strides: strides.to_vec(), offset, storage: 0 };
        read(&tensor, &storage, &Source::from_bytes(data.to_vec())).unwrap()
    }

    #[test]
    fn views_are_read_row_by_row() {
        let data = [0, 1, 2, 3, 4, 5];
        assert_eq!(read_u8(&[2, 3], &[3, 1], 0, &data), data);
        assert_eq!(read_u8(&[3, 2], &[1, 3], 0, &data), [0, 3, 1, 4, 2, 5]);
        assert_eq!(read_u8(&[2], &[2], 1, &data), [1, 3]);
        assert_eq!(read_u8(&[2, 2], &[0, 1], 4, &data), [4, 5, 4, 5]);
        assert_eq!(read_u8(&[], &[], 5, &data), [5]);
        assert!(read_u8(&[2, 0], &[0, 1], 0, &data).is_empty());
    }

    #[test]
    fn text_stands_for_bytes() {
        assert_eq!(bytes_of_text("a\u{ff}\0".as_bytes()).unwrap(), [b'a', 0xff, 0]);
        assert_eq!(bytes_of_text("☺".as_bytes()), None);
        assert_eq!(bytes_of_text(b"\xff"), None);
    }
}
