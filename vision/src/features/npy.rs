//! npy files, format 1.0 (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use ndarray::{ArrayView, Dimension};

use super::encoding::append_raw;
use super::{Dtype, ElementType};

impl ElementType {
    fn npy_descriptor(self) -> &'static str {
        match self {
            Self::Uint8 => "|u1",
            Self::Float16 => "<f2",
            Self::Float32 => "<f4",
            Self::Float64 => "<f8",
        }
    }
}

/// The header of an npy file for numbers of type `element` in C order, which follow it. Its length is a multiple of 64
/// bytes.
#[expect(clippy::missing_panics_doc, reason = "the header of a shape of a few axes is short")]
pub fn npy_header(element: impl Into<ElementType>, shape: &[usize]) -> Vec<u8> {
    const PREFIX: &[u8] = b"\x93NUMPY\x01\x00";
    const ALIGNMENT: usize = 64;
    let descriptor = element.into().npy_descriptor();
    // A tuple of one size needs its comma; NumPy accepts one after longer tuples.
    let sizes = shape.iter().fold(String::new(), |sizes, size| sizes + &size.to_string() + ",");
    let mut text = format!("{{'descr': '{descriptor}', 'fortran_order': False, 'shape': ({sizes}), }}");
    let unpadded = PREFIX.len() + 2 + text.len() + 1;
    text.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a shape of a few axes takes far less than 64 KiB");
    [PREFIX, &length.to_le_bytes(), text.as_bytes()].concat()
}

/// `tensor` as an npy file of floats.
#[expect(clippy::needless_pass_by_value, reason = "a view is made for the call and as small as a reference")]
pub fn encode_npy<D: Dimension>(tensor: ArrayView<'_, f32, D>, dtype: Dtype) -> Vec<u8> {
    let mut file = npy_header(dtype, tensor.shape());
    file.reserve_exact(tensor.len() * dtype.bytes());
    append_raw(&mut file, &tensor, dtype);
    file
}

/// `values`, in C order, as an npy file of unsigned 8-bit integers.
pub fn encode_npy_u8(values: &[u8], shape: &[usize]) -> Vec<u8> {
    [&npy_header(ElementType::Uint8, shape), values].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{FeatureMap, Layout};
    use ndarray::{Array2, Array3};
    use ndarray_npy::ReadNpyExt as _;

    #[test]
    fn arrays_are_read_back_in_either_layout() {
        let map = FeatureMap::new(2, 1, 3, vec![0.0, 1.0, 2.0, 3.0, 4.0, -5.5]).unwrap();
        for layout in [Layout::Chw, Layout::Hwc] {
            let file = encode_npy(map.view(layout), Dtype::Float32);
            assert_eq!(Array3::<f32>::read_npy(&file[..]).unwrap(), map.view(layout));
        }
        let bytes = encode_npy_u8(&[1, 2, 3, 4, 5, 6], &[2, 3]);
        assert_eq!(Array2::<u8>::read_npy(&bytes[..]).unwrap(), ndarray::array![[1, 2, 3], [4, 5, 6]]);
        let doubles = [npy_header(ElementType::Float64, &[1, 1]), 0.1_f64.to_le_bytes().to_vec()].concat();
        assert_eq!(Array2::<f64>::read_npy(&doubles[..]).unwrap(), ndarray::array![[0.1]]);
    }

    #[test]
    fn data_are_aligned_for_every_shape() {
        for shape in [&[][..], &[7], &[1, 2, 3], &[100_000, 100_000, 100_000, 100_000]] {
            let header = npy_header(Dtype::Float16, shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(header.last(), Some(&b'\n'));
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
        }
        let text = String::from_utf8_lossy(&npy_header(Dtype::Float16, &[7])).into_owned();
        assert!(text.contains("{'descr': '<f2', 'fortran_order': False, 'shape': (7,), }"), "{text}");
    }
}
