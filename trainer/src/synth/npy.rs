//! Arrays as NumPy's `.npy` files, format version 1.0.

use std::path::Path;

use super::{SynthError, write_file};

/// Writes `values` in row order with this shape.
pub(super) fn write_f32(path: &Path, shape: &[usize], values: &[f32]) -> Result<(), SynthError> {
    let mut bytes = header("<f4", shape);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    write_file(path, &bytes)
}

/// Writes `values` in row order with this shape.
pub(super) fn write_u8(path: &Path, shape: &[usize], values: &[u8]) -> Result<(), SynthError> {
    let mut bytes = header("|u1", shape);
    bytes.extend(values);
    write_file(path, &bytes)
}

/// What comes before the data: as long as a multiple of 64 bytes.
fn header(kind: &str, shape: &[usize]) -> Vec<u8> {
    let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
    // The comma at the end makes a tuple of a single length, too.
    let shape = lengths.join(", ");
    let text = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape},), }}");
    // Six bytes of magic, two of version, two of length, and a line feed at the end.
    let total = (10 + text.len() + 1).next_multiple_of(64);
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(((total - 10) as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.resize(total - 1, b' ');
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_whole_and_padded() {
        let bytes = header("<f4", &[360, 480, 2]);
        assert_eq!(bytes.len() % 64, 0);
        assert_eq!(usize::from(u16::from_le_bytes([bytes[8], bytes[9]])), bytes.len() - 10);
        let text = std::str::from_utf8(&bytes[10..]).unwrap();
        assert_eq!(text.trim_end(), "{'descr': '<f4', 'fortran_order': False, 'shape': (360, 480, 2,), }");
        assert!(text.ends_with('\n'));
    }
}
