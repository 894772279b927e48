//! Tensors as bytes, one piece at a time, so that a large one need not be in memory as a whole.

use std::ops::Range;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::tensor::Tensor;
use super::{Dtype, append_values};

/// Approximate size of a piece: large enough to be scheduled as one task, small enough that a dozen clients with a few
/// pieces each take little memory.
const PIECE_BYTES: usize = 1 << 20;
/// Values that are computed at once before they are converted. They fit in the second-level cache.
const BLOCK_VALUES: usize = 32 << 10;

/// Representation of numbers as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberForm {
    /// Little-endian.
    Binary(Dtype),
    /// Little-endian, as standard base64.
    Base64(Dtype),
    /// Nested JSON arrays of decimal numbers.
    Decimal,
}

impl NumberForm {
    /// Length of the longest float in JSON, with its comma.
    const LONGEST_DECIMAL: u64 = 16;

    /// Number of bytes of `values` numbers. For decimal numbers it is an upper bound, without brackets.
    pub fn bytes(self, values: u64) -> u64 {
        let binary = |dtype: Dtype| values.saturating_mul(dtype.bytes() as u64);
        match self {
            Self::Binary(dtype) => binary(dtype),
            Self::Base64(dtype) => binary(dtype).div_ceil(3).saturating_mul(4),
            Self::Decimal => values.saturating_mul(Self::LONGEST_DECIMAL),
        }
    }
}

/// Floats as the bytes that they have in memory.
struct Floats(Arc<Vec<f32>>);

impl AsRef<[u8]> for Floats {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// A tensor whose bytes are computed one piece at a time.
#[derive(Clone)]
pub struct EncodedTensor {
    tensor: Arc<dyn Tensor>,
    form: NumberForm,
    shape: Vec<usize>,
    values: usize,
    /// Values in each piece but the last.
    step: usize,
}

impl EncodedTensor {
    /// `tensor` in `form`.
    pub fn new(tensor: Arc<dyn Tensor>, form: NumberForm) -> Self {
        let shape = tensor.shape();
        let unit = tensor.unit();
        let unit_bytes = usize::try_from(form.bytes(unit as u64)).unwrap_or(usize::MAX).max(1);
        // Base64 encodes three bytes at a time: a piece with a multiple of three values needs no padding.
        let units = (PIECE_BYTES / unit_bytes).max(1).next_multiple_of(3);
        Self { values: shape.iter().product(), step: units * unit, tensor, form, shape }
    }

    /// Total number of bytes; `None` if it is known only after they are computed.
    pub fn bytes(&self) -> Option<u64> {
        match self.form {
            NumberForm::Binary(_) | NumberForm::Base64(_) => Some(self.form.bytes(self.values as u64)),
            NumberForm::Decimal => None,
        }
    }

    /// Number of pieces.
    pub fn pieces(&self) -> usize {
        self.values.div_ceil(self.step)
    }

    /// Tells whether a piece takes far less than a millisecond, because the values are in memory.
    pub fn is_quick(&self) -> bool {
        matches!(self.form, NumberForm::Binary(_)) && self.tensor.whole().is_some()
    }

    /// The bytes of the piece at `index`. All pieces in order make up the tensor. Bytes that are in memory in this form are
    /// shared, not copied.
    pub fn piece(&self, index: usize) -> Bytes {
        let start = index * self.step;
        let range = start..self.values.min(start + self.step);
        match self.form {
            NumberForm::Binary(Dtype::Float32) if cfg!(target_endian = "little") => match self.tensor.whole() {
                Some(values) => Bytes::from_owner(Floats(values)).slice(range.start * 4..range.end * 4),
                None => self.binary(range, Dtype::Float32).into(),
            },
            NumberForm::Binary(dtype) => self.binary(range, dtype).into(),
            NumberForm::Base64(dtype) => BASE64.encode(self.binary(range, dtype)).into(),
            NumberForm::Decimal => self.decimal(range).into(),
        }
    }

    fn binary(&self, range: Range<usize>, dtype: Dtype) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(range.len() * dtype.bytes());
        match self.tensor.whole() {
            Some(values) => append_values(&mut bytes, &values[range], dtype),
            None => self.for_blocks(range, |_, values| append_values(&mut bytes, values, dtype)),
        }
        bytes
    }

    fn decimal(&self, range: Range<usize>) -> Vec<u8> {
        let mut text = Vec::new();
        // Number of values of the whole tensor, of an element of its first axis, and so on.
        let sizes: Vec<usize> = (0..self.shape.len()).map(|axis| self.shape[axis..].iter().product()).collect();
        self.for_blocks(range, |first, values| {
            for (index, value) in (first..).zip(values) {
                if index > 0 {
                    text.push(b',');
                }
                text.extend(sizes.iter().filter(|&size| index % size == 0).map(|_| b'['));
                // JSON has no NaN or infinity; serde_json writes null.
                serde_json::to_writer(&mut text, value).expect("writing a number to memory cannot fail");
                text.extend(sizes.iter().filter(|&size| (index + 1) % size == 0).map(|_| b']'));
            }
        });
        text
    }

    /// Calls `visit` with the index of the first value of a block, and the block's values.
    fn for_blocks(&self, range: Range<usize>, mut visit: impl FnMut(usize, &[f32])) {
        let unit = self.tensor.unit();
        let block = (BLOCK_VALUES / unit).max(1) * unit;
        let mut values = Vec::with_capacity(block.min(range.len()));
        for start in range.clone().step_by(block) {
            values.clear();
            self.tensor.append(start..range.end.min(start + block), &mut values);
            visit(start, &values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{CellWindow, FeatureMap, GridWindow, Layout};
    use ndarray::{Array2, ArrayD, IxDyn};
    use proptest::prelude::*;

    fn whole(tensor: &EncodedTensor) -> Vec<u8> {
        (0..tensor.pieces()).flat_map(|index| tensor.piece(index)).collect()
    }

    fn encoded(rows: &Array2<f32>, form: NumberForm, step: usize) -> EncodedTensor {
        let mut tensor = EncodedTensor::new(Arc::new(rows.clone()), form);
        tensor.step = 3 * step * rows.ncols();
        tensor
    }

    proptest! {
        #[test]
        fn pieces_make_up_the_tensor((rows, columns) in (1_usize..20, 1_usize..5), step in 1_usize..4) {
            let tensor = Array2::from_shape_fn((rows, columns), |(row, column)| row as f32 - 0.5 * column as f32);
            for dtype in [Dtype::Float32, Dtype::Float16] {
                let expected = crate::features::encode_raw(tensor.view(), dtype);
                let binary = encoded(&tensor, NumberForm::Binary(dtype), step);
                prop_assert_eq!(binary.bytes(), Some(expected.len() as u64));
                prop_assert_eq!(whole(&binary), &expected[..]);
                let base64 = encoded(&tensor, NumberForm::Base64(dtype), step);
                let text = whole(&base64);
                prop_assert_eq!(base64.bytes(), Some(text.len() as u64));
                prop_assert_eq!(BASE64.decode(text).unwrap(), expected);
            }
            let text = whole(&encoded(&tensor, NumberForm::Decimal, step));
            let nested: Vec<Vec<f32>> = serde_json::from_slice(&text).unwrap();
            prop_assert_eq!(nested.into_iter().flatten().collect::<Vec<_>>(), tensor.into_raw_vec_and_offset().0);
        }
    }

    struct Counting(Vec<usize>);

    impl Tensor for Counting {
        fn shape(&self) -> Vec<usize> {
            self.0.clone()
        }

        fn unit(&self) -> usize {
            1
        }

        fn append(&self, range: Range<usize>, values: &mut Vec<f32>) {
            values.extend(range.map(|index| index as f32));
        }
    }

    #[test]
    fn a_shared_map_has_the_same_bytes() {
        let map = FeatureMap::new(3, 5, 7, (0..105).map(|index| index as f32 / 3.0).collect()).unwrap();
        let cells = CellWindow { columns: 0..7, rows: 0..5 };
        let mut tensor = EncodedTensor::new(
            Arc::new(GridWindow::new(map.clone(), cells, Layout::Chw)),
            NumberForm::Binary(Dtype::Float32),
        );
        assert!(tensor.tensor.whole().is_some());
        for step in [1, 8, 104, 105] {
            tensor.step = step;
            assert_eq!(whole(&tensor), crate::features::encode_raw(map.view(Layout::Chw), Dtype::Float32), "{step}");
        }
    }

    #[test]
    fn decimals_are_nested_by_axis() {
        let text = whole(&EncodedTensor::new(Arc::new(Counting(vec![2, 1, 3])), NumberForm::Decimal));
        assert_eq!(String::from_utf8(text).unwrap(), "[[[0.0,1.0,2.0]],[[3.0,4.0,5.0]]]");
    }

    #[test]
    fn a_large_tensor_comes_in_pieces_of_a_bounded_size() {
        let tensor = EncodedTensor::new(Arc::new(Counting(vec![10, 1000, 100])), NumberForm::Base64(Dtype::Float16));
        assert!(tensor.pieces() > 1);
        assert!((0..tensor.pieces()).all(|index| tensor.piece(index).len() < PIECE_BYTES + 16));
        let values = BASE64.decode(whole(&tensor)).unwrap();
        let expected = ArrayD::from_shape_fn(IxDyn(&[1_000_000]), |index| index[0] as f32);
        assert_eq!(values, crate::features::encode_raw(expected.view(), Dtype::Float16));
    }
}
