//! npy files are read back by someone else's reader.

use densecl_vision::features::{Dtype, EncodedTensor, NumberForm, encode_npy, encode_npy_u8, encode_raw, npy_header};
use half::f16;
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use ndarray_npy::ReadNpyExt as _;

use super::numbers::{Numbers, same, values};

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let mut numbers = Numbers(input);
    match numbers.byte() % 3 {
        0 => check_array(&mut numbers),
        1 => check_reply(&mut numbers),
        _ => check_bytes(&numbers),
    }
}

/// An array of any number of axes, some of them empty, in either order of memory.
fn check_array(numbers: &mut Numbers<'_>) {
    let rank = usize::from(numbers.byte() % 5);
    let shape: Vec<usize> = (0..rank).map(|_| usize::from(numbers.byte() % 9)).collect();
    let data = numbers.floats(shape.iter().product());
    let array = ArrayD::from_shape_vec(IxDyn(&shape), data).expect("as many as its shape says");
    for view in [array.view(), array.view().reversed_axes()] {
        let file = encode_npy(view.clone(), Dtype::Float32);
        assert_eq!(file.len() % 4, 0, "numbers lie where they are read fast");
        let read = ArrayD::<f32>::read_npy(&file[..]).expect("a valid file");
        assert_eq!(read.shape(), view.shape());
        assert!(same(&in_order(&read.view()), &in_order(&view)));
        check_halves(&view);
    }
}

fn check_halves(view: &ArrayViewD<'_, f32>) {
    let bytes = encode_raw(view.view(), Dtype::Float16);
    let halves = bytes.chunks_exact(2).map(|two| f16::from_le_bytes([two[0], two[1]]).to_f32());
    let expected: Vec<f32> = view.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
    assert!(same(&halves.collect::<Vec<_>>(), &expected));
    let header = npy_header(Dtype::Float16, view.shape());
    assert_eq!(encode_npy(view.view(), Dtype::Float16), [header, bytes].concat());
}

/// A reply that is computed piece by piece.
fn check_reply(numbers: &mut Numbers<'_>) {
    let step = numbers.size(7);
    let Some(tensor) = numbers.rendered() else { return };
    let (shape, expected) = (tensor.shape(), values(&*tensor, step));
    let encoded = EncodedTensor::new(tensor, NumberForm::Binary(Dtype::Float32));
    let pieces = (0..encoded.pieces()).flat_map(|piece| encoded.piece(piece));
    let file: Vec<u8> = npy_header(Dtype::Float32, &shape).into_iter().chain(pieces).collect();
    assert_eq!(encoded.bytes(), Some(4 * expected.len() as u64));
    let read = ArrayD::<f32>::read_npy(&file[..]).expect("a valid file");
    assert_eq!(read.shape(), shape);
    assert!(same(&in_order(&read.view()), &expected));
}

fn check_bytes(numbers: &Numbers<'_>) {
    let file = encode_npy_u8(numbers.0, &[numbers.0.len()]);
    let read = ArrayD::<u8>::read_npy(&file[..]).expect("a valid file");
    assert_eq!(read.as_slice(), Some(numbers.0));
}

fn in_order(array: &ArrayViewD<'_, f32>) -> Vec<f32> {
    array.iter().copied().collect()
}
