//! Rows of samples as they are stored, and as bytes.

use half::f16;

use super::sample_layout::{Photometric, Predictor, SampleDepth, SampleLayout};
use crate::image::decode::fields::ByteOrder;

/// The range of floating-point numbers that stands for black to white.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FloatRange {
    /// 0 to 1.
    Unit,
    /// 0 to 255.
    Bytes,
}

/// One row of a chunk as 8-bit samples. Indices of a palette stay what they are; everything else becomes 0 to 255.
pub(super) fn to_bytes(row: &[u8], layout: &SampleLayout, range: FloatRange, values: &mut [u8]) {
    match layout.depth {
        SampleDepth::Unsigned(8) => {
            values.copy_from_slice(row);
            if layout.predictor == Predictor::Difference {
                let pixel = layout.samples_per_chunk_pixel;
                for index in pixel..values.len() {
                    values[index] = values[index].wrapping_add(values[index - pixel]);
                }
            }
        }
        SampleDepth::Unsigned(12) => unpack_12_bits(row, values),
        SampleDepth::Unsigned(16) => {
            values.iter_mut().zip(whole_numbers::<2>(row, layout)).for_each(|(value, deep)| *value = (deep >> 8) as u8);
        }
        SampleDepth::Unsigned(32) => {
            values
                .iter_mut()
                .zip(whole_numbers::<4>(row, layout))
                .for_each(|(value, deep)| *value = deep.min(255) as u8);
        }
        SampleDepth::Signed(16) => {
            let signed = whole_numbers::<2>(row, layout).into_iter().map(|deep| i32::from((deep as u16).cast_signed()));
            values.iter_mut().zip(signed).for_each(|(value, deep)| *value = deep.clamp(0, 255) as u8);
        }
        SampleDepth::Signed(_) => {
            let signed = whole_numbers::<4>(row, layout).into_iter().map(|deep| (deep as u32).cast_signed());
            values.iter_mut().zip(signed).for_each(|(value, deep)| *value = deep.clamp(0, 255) as u8);
        }
        SampleDepth::Unsigned(bits) => unpack(row, bits, layout.photometric == Photometric::Palette, values),
        SampleDepth::Float(bits) => {
            let floats = floats(row, bits, layout);
            // The casts saturate: NaN becomes 0, and values outside the range are cut off.
            values.iter_mut().zip(floats).for_each(|(value, float)| {
                *value = match range {
                    FloatRange::Unit => (float * 255.0 + 0.5) as u8,
                    FloatRange::Bytes => float as u8,
                };
            });
        }
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

/// The upper 8 bits of samples of 12, two in three bytes.
fn unpack_12_bits(row: &[u8], values: &mut [u8]) {
    for (values, bytes) in values.chunks_mut(2).zip(row.chunks(3)) {
        for (place, value) in values.iter_mut().enumerate() {
            *value = match (place, bytes) {
                (0, &[first, ..]) => first,
                (_, &[_, second, third]) => second << 4 | third >> 4,
                _ => 0,
            };
        }
    }
}

/// Numbers of 2, 4 or 8 bytes, without sign, after the predictor is undone.
fn whole_numbers<const N: usize>(row: &[u8], layout: &SampleLayout) -> Vec<u64> {
    let widened = |field: [u8; N]| field.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let little = |mut field: [u8; N]| {
        field.reverse();
        widened(field)
    };
    let mut deep = numbers(row, layout.byte_order, little, widened);
    if layout.predictor == Predictor::Difference {
        let (pixel, mask) = (layout.samples_per_chunk_pixel, u64::MAX >> (64 - 8 * N));
        for index in pixel..deep.len() {
            deep[index] = deep[index].wrapping_add(deep[index - pixel]) & mask;
        }
    }
    deep
}

/// The floating-point numbers of a row.
pub(super) fn floats(row: &[u8], bits: u32, layout: &SampleLayout) -> Vec<f32> {
    // That predictor takes the bits of floats for whole numbers, too.
    if layout.predictor == Predictor::Difference {
        return match bits {
            16 => {
                whole_numbers::<2>(row, layout).into_iter().map(|bits| f16::from_bits(bits as u16).to_f32()).collect()
            }
            32 => whole_numbers::<4>(row, layout).into_iter().map(|bits| f32::from_bits(bits as u32)).collect(),
            _ => whole_numbers::<8>(row, layout).into_iter().map(|bits| f64::from_bits(bits) as f32).collect(),
        };
    }
    let sorted;
    let (row, order) = match layout.predictor {
        Predictor::FloatDifference => {
            sorted = by_sample(row, bits as usize / 8, layout.samples_per_chunk_pixel);
            (sorted.as_slice(), ByteOrder::Big)
        }
        Predictor::None | Predictor::Difference => (row, layout.byte_order),
    };
    match bits {
        16 => numbers(row, order, |b| f16::from_le_bytes(b).to_f32(), |b| f16::from_be_bytes(b).to_f32()),
        32 => numbers(row, order, f32::from_le_bytes, f32::from_be_bytes),
        _ => numbers(row, order, |b| f64::from_le_bytes(b) as f32, |b| f64::from_be_bytes(b) as f32),
    }
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
    order: ByteOrder,
    little: impl Fn([u8; N]) -> T,
    big: impl Fn([u8; N]) -> T,
) -> Vec<T> {
    let (fields, _) = bytes.as_chunks();
    let number = |field| match order {
        ByteOrder::Little => little(field),
        ByteOrder::Big => big(field),
    };
    fields.iter().map(|&field| number(field)).collect()
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
    fn twelve_bits_keep_the_upper_eight() {
        let mut values = [0; 3];
        unpack_12_bits(&[0xAB, 0xCD, 0xEF, 0x12, 0x30], &mut values);
        assert_eq!(values, [0xAB, 0xDE, 0x12]);
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
