//! Types of a tensor's elements.

use std::fmt;

use half::{bf16, f16};

/// Type of a tensor's elements; little-endian where it has more than one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DType {
    /// 32-bit floating point.
    Float32,
    /// 64-bit floating point.
    Float64,
    /// IEEE 754 half precision.
    Float16,
    /// The upper half of a float32.
    BFloat16,
    /// Signed, 64 bits.
    Int64,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 8 bits.
    Int8,
    /// Unsigned, 8 bits.
    UInt8,
    /// One byte, zero or one.
    Bool,
}

impl DType {
    /// All of them, with the storage class that PyTorch knows them by.
    pub(crate) const STORAGES: [(Self, &'static str); 10] = [
        (Self::Float32, "FloatStorage"),
        (Self::Float64, "DoubleStorage"),
        (Self::Float16, "HalfStorage"),
        (Self::BFloat16, "BFloat16Storage"),
        (Self::Int64, "LongStorage"),
        (Self::Int32, "IntStorage"),
        (Self::Int16, "ShortStorage"),
        (Self::Int8, "CharStorage"),
        (Self::UInt8, "ByteStorage"),
        (Self::Bool, "BoolStorage"),
    ];

    /// By NumPy's code of kind and size, without the byte order.
    pub(crate) fn from_numpy(code: &str) -> Option<Self> {
        Some(match code {
            "f4" => Self::Float32,
            "f8" => Self::Float64,
            "f2" => Self::Float16,
            "i8" => Self::Int64,
            "i4" => Self::Int32,
            "i2" => Self::Int16,
            "i1" => Self::Int8,
            "u1" => Self::UInt8,
            "b1" => Self::Bool,
            _ => return None,
        })
    }

    /// By the type of a safetensors file.
    pub(crate) fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::F32 => Self::Float32,
            Dtype::F64 => Self::Float64,
            Dtype::F16 => Self::Float16,
            Dtype::BF16 => Self::BFloat16,
            Dtype::I64 => Self::Int64,
            Dtype::I32 => Self::Int32,
            Dtype::I16 => Self::Int16,
            Dtype::I8 => Self::Int8,
            Dtype::U8 => Self::UInt8,
            Dtype::BOOL => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of an element.
    pub fn size(self) -> u64 {
        match self {
            Self::Float64 | Self::Int64 => 8,
            Self::Float32 | Self::Int32 => 4,
            Self::Float16 | Self::BFloat16 | Self::Int16 => 2,
            Self::Int8 | Self::UInt8 | Self::Bool => 1,
        }
    }

    /// Returns whether weights can have this type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Float64 | Self::Float16 | Self::BFloat16)
    }

    /// Elements as float32, exact but for float64, which is rounded; `None` if these are no floats.
    pub(crate) fn to_f32(self, bytes: &[u8]) -> Option<Vec<f32>> {
        fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
            bytes.as_chunks().0.iter().map(|&element| convert(element)).collect()
        }
        Some(match self {
            Self::Float32 => each(bytes, f32::from_le_bytes),
            Self::Float64 => each(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::Float16 => each(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::BFloat16 => each(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            _ => return None,
        })
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::Float16 => "float16",
            Self::BFloat16 => "bfloat16",
            Self::Int64 => "int64",
            Self::Int32 => "int32",
            Self::Int16 => "int16",
            Self::Int8 => "int8",
            Self::UInt8 => "uint8",
            Self::Bool => "bool",
        })
    }
}
