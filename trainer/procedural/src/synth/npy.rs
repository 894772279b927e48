//! Arrays as files of NumPy's `.npy` format.

use std::path::Path;

use densecl_vision::features::{Dtype, append_values, encode_npy_u8, npy_header};

use super::{SynthError, write_file};

/// Writes `values` in row order with this shape, as float32.
pub(super) fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), SynthError> {
    let mut bytes = npy_header(Dtype::Float32, shape);
    append_values(&mut bytes, values, Dtype::Float32);
    write_file(path, &bytes)
}

/// Writes `values` in row order with this shape, as uint8.
pub(super) fn write_u8(path: &Path, shape: &[usize], values: &[u8]) -> Result<(), SynthError> {
    write_file(path, &encode_npy_u8(values, shape))
}
