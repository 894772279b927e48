//! Rows of samples as they are stored, and as bytes.

use half::f16;

use super::sample_layout::{Photometric, Predictor, SampleDepth, SampleLayout};

/// One row of a chunk as 8-bit samples. Indices of a palette stay what they are; everything else is scaled to 0 to 255.
pub(super) fn to_bytes(row: &[u8], layout: &SampleLayout, values: &mut [u8]) {
    let pixel = layout.samples_per_chunk_pixel;
    match layout.depth {
        SampleDepth::Unsigned(8) => {
            values.copy_from_slice(row);
            if layout.predictor == Predictor::Difference {
                for index in pixel..values.len() {
                    values[index] = values[index].wrapping_add(values[index - pixel]);
                }
            }
        }
        SampleDepth::Unsigned(16) => {
            let mut deep: Vec<u16> = numbers(row, layout.is_little_endian, u16::from_le_bytes, u16::from_be_bytes);
            if layout.predictor == Predictor::Difference {
                for index in pixel..deep.len() {
                    deep[index] = deep[index].wrapping_add(deep[index - pixel]);
                }
            }
            values.iter_mut().zip(deep).for_each(|(value, deep)| *value = (deep >> 8) as u8);
        }
        SampleDepth::Unsigned(bits) => unpack(row, bits, layout.photometric == Photometric::Palette, values),
        SampleDepth::Float(bits) => floats_to_bytes(row, bits, layout, values),
    }
}

/// Samples of 1, 2 or 4 bits, the first in the highest bits of a byte.
fn unpack(row: &[u8], bits: u32, is_palette: bool, values: &mut [u8]) {
    let largest = (1_u8 << bits) - 1;
    let scale = if is_palette { 1 } else { 255 / largest };
    let per_byte = 8 / bits as usize;
    for (values, &byte) in values.chunks_mut(per_byte).zip(row) {
        for (place, value) in (1..).zip(values) {
            *value = ((byte >> (8 - bits * place)) & largest) * scale;
        }
    }
}

fn floats_to_bytes(row: &[u8], bits: u32, layout: &SampleLayout, values: &mut [u8]) {
    let (sorted, is_little_endian) = match layout.predictor {
        Predictor::FloatDifference => (by_sample(row, bits as usize / 8, layout.samples_per_chunk_pixel), false),
        _ => (row.to_vec(), layout.is_little_endian),
    };
    let bytes_from = |floats: Vec<f32>, values: &mut [u8]| {
        for (value, float) in values.iter_mut().zip(floats) {
            // The cast saturates: NaN becomes 0, and values outside 0 to 1 are cut off.
            *value = (float * 255.0 + 0.5) as u8;
        }
    };
    let floats = match bits {
        16 => {
            numbers(&sorted, is_little_endian, |b| f16::from_le_bytes(b).to_f32(), |b| f16::from_be_bytes(b).to_f32())
        }
        32 => numbers(&sorted, is_little_endian, f32::from_le_bytes, f32::from_be_bytes),
        _ => numbers(&sorted, is_little_endian, |b| f64::from_le_bytes(b) as f32, |b| f64::from_be_bytes(b) as f32),
    };
    bytes_from(floats, values);
}

/// Undoes the predictor of floats: differences of bytes, the most significant ones of the whole row first. Gives
/// big-endian numbers.
fn by_sample(row: &[u8], bytes_per_sample: usize, samples_per_pixel: usize) -> Vec<u8> {
    let mut planes = row.to_vec();
    for index in samples_per_pixel..planes.len() {
        planes[index] = planes[index].wrapping_add(planes[index - samples_per_pixel]);
    }
    let samples = planes.len() / bytes_per_sample;
    (0..samples * bytes_per_sample)
        .map(|index| planes[index % bytes_per_sample * samples + index / bytes_per_sample])
        .collect()
}

fn numbers<const N: usize, T>(
    bytes: &[u8],
    is_little_endian: bool,
    little: impl Fn([u8; N]) -> T,
    big: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let (fields, _) = bytes.as_chunks();
    fields.iter().map(|&field| if is_little_endian { little(field) } else { big(field) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_samples_are_scaled_and_indices_are_not() {
        let mut values = [0; 5];
        unpack(&[0b0001_1011, 0b1100_0000], 2, false, &mut values);
        assert_eq!(values, [0, 85, 170, 255, 255]);
        unpack(&[0b0001_1011, 0b1100_0000], 2, true, &mut values);
        assert_eq!(values, [0, 1, 2, 3, 3]);
        unpack(&[0b1010_0000], 1, false, &mut values);
        assert_eq!(values, [255, 0, 255, 0, 0]);
    }

    #[test]
    fn the_predictor_of_floats_is_undone() {
        let floats = [0.25_f32, 0.5, -3.0];
        let bytes: Vec<[u8; 4]> = floats.iter().map(|float| float.to_be_bytes()).collect();
        let planes: Vec<u8> = (0..4).flat_map(|byte| bytes.iter().map(move |sample| sample[byte])).collect();
        let mut row = planes.clone();
        for index in 1..row.len() {
            row[index] = planes[index].wrapping_sub(planes[index - 1]);
        }
        assert_eq!(by_sample(&row, 4, 1), bytes.concat());
    }
}
