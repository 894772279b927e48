//! Number types and layouts of tensors, and tensors as raw little-endian bytes.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ndarray::{ArrayView, Dimension};
/// Float type of the numbers of a reply. [`ElementType`] has all types that files can hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE 754, 4 bytes.
    #[default]
    Float32,
    /// IEEE 754, 2 bytes.
    Float16,
}

/// Order of a map's axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Channels, rows, columns.
    #[default]
    Chw,
    /// Rows, columns, channels.
    Hwc,
}

impl Layout {
    /// The name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chw => "chw",
            Self::Hwc => "hwc",
        }
    }

    /// The shape of a map in this order of axes.
    pub fn shape(self, channels: usize, height: usize, width: usize) -> [usize; 3] {
        match self {
            Self::Chw => [channels, height, width],
            Self::Hwc => [height, width, channels],
        }
    }
}

impl Dtype {
    /// The name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
        }
    }

    /// Size of a number in bytes.
    pub fn bytes(self) -> usize {
        ElementType::from(self).bytes()
    }
}

/// Type of the numbers of a tensor in a file, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ElementType {
    /// Unsigned, 1 byte.
    Uint8,
    /// IEEE 754, 2 bytes.
    Float16,
    /// IEEE 754, 4 bytes.
    Float32,
    /// IEEE 754, 8 bytes.
    Float64,
}

impl ElementType {
    /// Size of a number in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Uint8 => 1,
            Self::Float16 => 2,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }
}

impl From<Dtype> for ElementType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float32 => Self::Float32,
            Dtype::Float16 => Self::Float16,
        }
    }
}

/// A number that a file can hold.
pub trait Element: Copy {
    /// Its type.
    const TYPE: ElementType;

    /// Appends its bytes, little-endian.
    fn append_le_bytes(self, bytes: &mut Vec<u8>);
}

impl Element for u8 {
    const TYPE: ElementType = ElementType::Uint8;

    fn append_le_bytes(self, bytes: &mut Vec<u8>) {
        bytes.push(self);
    }
}

impl Element for f32 {
    const TYPE: ElementType = ElementType::Float32;

    fn append_le_bytes(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

impl Element for f64 {
    const TYPE: ElementType = ElementType::Float64;

    fn append_le_bytes(self, bytes: &mut Vec<u8>) {
        bytes.extend(self.to_le_bytes());
    }
}

/// The values of `tensor` in row-major order, little-endian.
#[expect(clippy::needless_pass_by_value, reason = "a view is made on the spot and as small as a reference")]
pub fn encode_raw<D: Dimension>(tensor: ArrayView<'_, f32, D>, dtype: Dtype) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tensor.len() * dtype.bytes());
    append_raw(&mut bytes, &tensor, dtype);
    bytes
}

pub(super) fn append_raw<D: Dimension>(bytes: &mut Vec<u8>, tensor: &ArrayView<'_, f32, D>, dtype: Dtype) {
    let ordered = tensor.as_standard_layout();
    append_values(bytes, ordered.as_slice().expect("the array is in standard layout"), dtype);
}

/// Appends `values` to `bytes`, little-endian.
pub fn append_values(bytes: &mut Vec<u8>, values: &[f32], dtype: Dtype) {
    let start = bytes.len();
    bytes.resize(start + values.len() * dtype.bytes(), 0);
    let free = &mut bytes[start..];
    match dtype {
        Dtype::Float32 => {
            for (place, value) in free.chunks_exact_mut(4).zip(values) {
                place.copy_from_slice(&value.to_le_bytes());
            }
        }
        Dtype::Float16 => {
            // In blocks, because processors convert eight numbers at once.
            let mut block = [f16::ZERO; 1024];
            for (places, values) in free.chunks_mut(2 * block.len()).zip(values.chunks(block.len())) {
                let halves = &mut block[..values.len()];
                halves.convert_from_f32_slice(values);
                for (place, half) in places.chunks_exact_mut(2).zip(halves) {
                    place.copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::FeatureMap;
    use ndarray::Array1;
    use proptest::prelude::*;

    #[test]
    fn layouts_order_the_bytes() {
        let map = FeatureMap::new(2, 1, 3, vec![0.0, 1.0, 2.0, 3.0, 4.0, -5.5]).unwrap();
        let values = |layout| -> Vec<f32> {
            let bytes = encode_raw(map.view(layout), Dtype::Float32);
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
        };
        assert_eq!(values(Layout::Chw), [0.0, 1.0, 2.0, 3.0, 4.0, -5.5]);
        assert_eq!(values(Layout::Hwc), [0.0, 3.0, 1.0, 4.0, 2.0, -5.5]);
    }

    proptest! {
        #[test]
        fn halves_round_to_the_nearest(values in prop::collection::vec(-6e4_f32..6e4, 0..3000)) {
            let bytes = encode_raw(Array1::from(values.clone()).view(), Dtype::Float16);
            prop_assert_eq!(bytes.len(), 2 * values.len());
            for (two, value) in bytes.chunks_exact(2).zip(values) {
                prop_assert_eq!(f16::from_le_bytes([two[0], two[1]]), f16::from_f32(value));
            }
        }
    }
}
