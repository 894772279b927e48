//! Tensors as bytes: raw little-endian and npy.

use half::f16;
use half::slice::HalfFloatSliceExt as _;
use ndarray::{ArrayView, Dimension};
use serde::{Deserialize, Serialize};

/// Type of the numbers of a reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754, 4 bytes.
    #[default]
    Float32,
    /// IEEE 754, 2 bytes.
    Float16,
}

/// Order of a map's axes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Channels, rows, columns.
    #[default]
    Chw,
    /// Rows, columns, channels.
    Hwc,
}

impl Layout {
    /// Its name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chw => "chw",
            Self::Hwc => "hwc",
        }
    }

    /// The shape of a map in this order.
    pub fn shape(self, channels: usize, height: usize, width: usize) -> [usize; 3] {
        match self {
            Self::Chw => [channels, height, width],
            Self::Hwc => [height, width, channels],
        }
    }
}

impl Dtype {
    /// Bytes a number takes.
    pub fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 => 2,
        }
    }

    /// Its name in requests and replies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
        }
    }

    /// Its name in an npy header.
    fn npy_descriptor(self) -> &'static str {
        match self {
            Self::Float32 => "<f4",
            Self::Float16 => "<f2",
        }
    }
}

/// The values of `tensor` in its logical order, little-endian.
#[expect(clippy::needless_pass_by_value, reason = "a view is made on the spot and as small as a reference")]
pub fn encode_raw<D: Dimension>(tensor: ArrayView<'_, f32, D>, dtype: Dtype) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(tensor.len() * dtype.bytes());
    append_raw(&mut bytes, &tensor, dtype);
    bytes
}

fn append_raw<D: Dimension>(bytes: &mut Vec<u8>, tensor: &ArrayView<'_, f32, D>, dtype: Dtype) {
    let ordered = tensor.as_standard_layout();
    append_values(bytes, ordered.as_slice().expect("it was just brought into standard layout"), dtype);
}

/// Appends `values` to `bytes`, little-endian: the piece a reply that is written as it is computed is made of.
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
            // In blocks: the processor converts eight at once, where it can.
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

/// The header of an npy file (format 1.0) for numbers of `dtype` in C order, which follow it.
pub fn npy_header(dtype: Dtype, shape: &[usize]) -> Vec<u8> {
    npy_header_of(dtype.npy_descriptor(), shape)
}

fn npy_header_of(descriptor: &str, shape: &[usize]) -> Vec<u8> {
    const PREFIX: &[u8] = b"\x93NUMPY\x01\x00";
    const ALIGNMENT: usize = 64;
    // A tuple of one needs its comma; NumPy does not mind one after longer tuples.
    let sizes = shape.iter().fold(String::new(), |sizes, size| sizes + &size.to_string() + ",");
    let mut text = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The numbers start at a multiple of 64 bytes, after a newline.
    let unpadded = PREFIX.len() + 2 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape of a few axes takes far less than 64 KiB");
    [PREFIX, &length.to_le_bytes(), text.as_bytes()].concat()
}

/// Whole numbers of 8 bits, in C order, as an npy file.
pub fn encode_npy_bytes(values: &[u8], shape: &[usize]) -> Vec<u8> {
    [&npy_header_of("|u1", shape), values].concat()
}

/// `tensor` as an npy file.
#[expect(clippy::needless_pass_by_value, reason = "a view is made on the spot and as small as a reference")]
pub fn encode_npy<D: Dimension>(tensor: ArrayView<'_, f32, D>, dtype: Dtype) -> Vec<u8> {
    let mut file = npy_header(dtype, tensor.shape());
    file.reserve_exact(tensor.len() * dtype.bytes());
    append_raw(&mut file, &tensor, dtype);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::FeatureMap;
    use ndarray::{Array1, Array3};
    use ndarray_npy::ReadNpyExt as _;
    use proptest::prelude::*;

    fn map() -> FeatureMap {
        FeatureMap::new(2, 1, 3, vec![0.0, 1.0, 2.0, 3.0, 4.0, -5.5]).unwrap()
    }

    #[test]
    fn layouts_order_the_bytes() {
        let values = |layout| -> Vec<f32> {
            let bytes = encode_raw(map().view(layout), Dtype::Float32);
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
        };
        assert_eq!(values(Layout::Chw), [0.0, 1.0, 2.0, 3.0, 4.0, -5.5]);
        assert_eq!(values(Layout::Hwc), [0.0, 3.0, 1.0, 4.0, 2.0, -5.5]);
    }

    #[test]
    fn npy_reads_back_in_either_layout() {
        for layout in [Layout::Chw, Layout::Hwc] {
            let map = map();
            let file = encode_npy(map.view(layout), Dtype::Float32);
            assert_eq!(Array3::<f32>::read_npy(&file[..]).unwrap(), map.view(layout));
        }
    }

    #[test]
    fn npy_data_are_aligned_whatever_the_shape() {
        for shape in [&[][..], &[7], &[1, 2, 3], &[100_000, 100_000, 100_000, 100_000]] {
            let header = npy_header(Dtype::Float16, shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
        }
        let text = String::from_utf8_lossy(&npy_header(Dtype::Float16, &[7])).into_owned();
        assert!(text.contains("{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }"), "{text}");
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
