//! Constants hold as many numbers as their shape says.
//!
//! A runtime trusts the shape when it reads the data.

use crate::proto::TensorProto;
use crate::proto::tensor_proto::{DataLocation, DataType};

/// Checks one constant.
///
/// # Errors
/// Returns what is wrong with it, as the words that follow its name in a message.
pub(super) fn check(tensor: &TensorProto) -> Result<(), String> {
    if tensor.data_location() == DataLocation::External {
        return Err("lies outside the file".to_owned());
    }
    if tensor.segment.is_some() {
        return Err("is a part of a tensor, which ONNX Runtime does not read".to_owned());
    }
    let Ok(data_type) = DataType::try_from(tensor.data_type()) else {
        return Err(format!("has the unknown data type {}", tensor.data_type()));
    };
    let stored = Stored::from_data_type(data_type).ok_or("has no data type")?;
    let count = count(&tensor.dims).ok_or_else(|| format!("has the impossible shape {:?}", tensor.dims))?;
    let lengths = [
        (Field::Float, tensor.float_data.len()),
        (Field::Int32, tensor.int32_data.len()),
        (Field::Int64, tensor.int64_data.len()),
        (Field::Double, tensor.double_data.len()),
        (Field::Uint64, tensor.uint64_data.len()),
        (Field::Text, tensor.string_data.len()),
    ];
    let has_raw = !tensor.raw_data().is_empty();
    if let Some((field, _)) = lengths.iter().find(|(field, length)| *length > 0 && (has_raw || *field != stored.field))
    {
        return Err(format!("has {field:?} data that do not belong to its type {data_type:?}"));
    }
    let expected_bytes = stored.bits.and_then(|bits| count.checked_mul(bits)).map(|bits| bits.div_ceil(8));
    let found = lengths.iter().find(|(field, _)| *field == stored.field).map_or(0, |(_, length)| *length as u64);
    let is_right = if has_raw {
        expected_bytes == Some(tensor.raw_data().len() as u64)
    } else {
        stored.elements(count) == Some(found)
    };
    if is_right {
        return Ok(());
    }
    let found = if has_raw { format!("{} bytes", tensor.raw_data().len()) } else { format!("{found} numbers") };
    Err(format!("has {found}, which is not what its shape {:?} of {data_type:?} takes", tensor.dims))
}

/// The product of `dims`.
fn count(dims: &[i64]) -> Option<u64> {
    let sizes: Vec<u64> = dims.iter().map(|dim| u64::try_from(*dim)).collect::<Result<_, _>>().ok()?;
    // Zero times anything is zero, even where the rest alone would be too many.
    if sizes.contains(&0) {
        return Some(0);
    }
    sizes.into_iter().try_fold(1_u64, u64::checked_mul)
}

/// The fields of a tensor that hold numbers one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Float,
    Int32,
    Int64,
    Double,
    Uint64,
    Text,
}

/// Storage of the numbers of a type.
#[derive(Clone, Copy)]
struct Stored {
    /// Bits of a number among raw data; text is never there.
    bits: Option<u64>,
    field: Field,
    /// Elements of `field` for so many numbers: (elements, numbers).
    ratio: (u64, u64),
}

impl Stored {
    fn from_data_type(data_type: DataType) -> Option<Self> {
        use DataType as D;
        let (bits, field, ratio) = match data_type {
            D::Undefined => return None,
            D::Float => (32, Field::Float, (1, 1)),
            D::Complex64 => (64, Field::Float, (2, 1)),
            D::Double => (64, Field::Double, (1, 1)),
            D::Complex128 => (128, Field::Double, (2, 1)),
            D::Int64 => (64, Field::Int64, (1, 1)),
            D::Uint64 => (64, Field::Uint64, (1, 1)),
            D::Uint32 => (32, Field::Uint64, (1, 1)),
            D::Int32 => (32, Field::Int32, (1, 1)),
            D::Uint16 | D::Int16 | D::Float16 | D::Bfloat16 => (16, Field::Int32, (1, 1)),
            D::Uint8
            | D::Int8
            | D::Bool
            | D::Float8e4m3fn
            | D::Float8e4m3fnuz
            | D::Float8e5m2
            | D::Float8e5m2fnuz
            | D::Float8e8m0 => (8, Field::Int32, (1, 1)),
            D::Uint4 | D::Int4 | D::Float4e2m1 => (4, Field::Int32, (1, 2)),
            D::Uint2 | D::Int2 => (2, Field::Int32, (1, 4)),
            D::String => return Some(Self { bits: None, field: Field::Text, ratio: (1, 1) }),
        };
        Some(Self { bits: Some(bits), field, ratio })
    }

    fn elements(self, numbers: u64) -> Option<u64> {
        numbers.checked_mul(self.ratio.0).map(|elements| elements.div_ceil(self.ratio.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(data_type: DataType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: Some(data_type as i32), dims: dims.to_vec(), ..TensorProto::default() }
    }

    fn raw(data_type: DataType, dims: &[i64], bytes: usize) -> Result<(), String> {
        check(&TensorProto { raw_data: Some(vec![0; bytes].into()), ..tensor(data_type, dims) })
    }

    #[test]
    fn bytes_are_as_many_as_the_shape_says() {
        for (data_type, dims, bytes) in [
            (DataType::Float, &[2, 3][..], 24),
            (DataType::Float, &[], 4),
            (DataType::Float, &[0, i64::MAX, i64::MAX], 0),
            (DataType::Float16, &[3], 6),
            (DataType::Int4, &[3], 2),
            (DataType::Complex128, &[1], 16),
        ] {
            assert_eq!(raw(data_type, dims, bytes), Ok(()), "{data_type:?} {dims:?}");
            let reason = raw(data_type, dims, bytes + 1).unwrap_err();
            assert!(reason.contains("is not what its shape"), "{reason}");
        }
        for dims in [&[-1][..], &[i64::MAX, 3]] {
            assert!(raw(DataType::Float, dims, 4).unwrap_err().contains("impossible shape"), "{dims:?}");
        }
        assert!(raw(DataType::Float, &[i64::MAX], 4).is_err());
        assert!(raw(DataType::Undefined, &[1], 4).unwrap_err().contains("no data type"));
        assert!(raw(DataType::String, &[4], 4).is_err());
        assert!(check(&TensorProto { data_type: Some(99), ..TensorProto::default() }).unwrap_err().contains("99"));
    }

    #[test]
    fn numbers_lie_in_the_field_of_their_type() {
        let halves = TensorProto { int32_data: vec![1, 2], ..tensor(DataType::Float16, &[2]) };
        assert_eq!(check(&halves), Ok(()));
        let nibbles = TensorProto { int32_data: vec![1, 2], ..tensor(DataType::Uint4, &[3]) };
        assert_eq!(check(&nibbles), Ok(()));
        let elsewhere = TensorProto { float_data: vec![1.0, 2.0], ..tensor(DataType::Int64, &[2]) };
        assert!(check(&elsewhere).unwrap_err().contains("do not belong"));
        let twice =
            TensorProto { float_data: vec![1.0], raw_data: Some(vec![0; 4].into()), ..tensor(DataType::Float, &[1]) };
        assert!(check(&twice).unwrap_err().contains("do not belong"));
        assert!(check(&tensor(DataType::Float, &[2])).unwrap_err().contains("0 numbers"));
    }
}
