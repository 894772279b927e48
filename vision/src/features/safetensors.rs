//! safetensors files (<https://github.com/huggingface/safetensors>): the length of the header as a little-endian u64, the
//! header, a JSON object that gives the place of every tensor, then the bytes of the tensors.
//!
//! The crate `safetensors` writes tensors that are in memory. [`safetensors_header`] needs only their shapes, so that
//! their bytes can be computed while they are sent.

use ndarray::{ArrayView, Dimension};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;

use super::encoding::{Element, ElementType};

impl ElementType {
    fn safetensors_name(self) -> &'static str {
        match self {
            Self::Uint8 => "U8",
            Self::Float16 => "F16",
            Self::Float32 => "F32",
            Self::Float64 => "F64",
        }
    }
}

/// Name, type and shape of a tensor in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// Name, used once in a file and not `__metadata__`.
    pub name: String,
    /// Type of the numbers.
    pub element: ElementType,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
}

impl TensorEntry {
    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.element.bytes()
    }
}

/// A tensor of a file, with its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTensor {
    entry: TensorEntry,
    bytes: Vec<u8>,
}

impl StoredTensor {
    /// The values of `tensor` in row-major order under `name`, which is used once in a file and not `__metadata__`.
    pub fn new<T: Element, D: Dimension>(name: impl Into<String>, tensor: ArrayView<'_, T, D>) -> Self {
        let entry = TensorEntry { name: name.into(), element: T::TYPE, shape: tensor.shape().to_vec() };
        let mut bytes = Vec::with_capacity(entry.bytes());
        for number in tensor {
            number.append_le_bytes(&mut bytes);
        }
        Self { entry, bytes }
    }
}

/// The length and the header of a file whose tensors follow one after the other, in the order of `tensors`, with
/// `metadata` as pairs of name and value. The length of both is a multiple of 8 bytes.
///
/// Readers need every tensor at a multiple of the size of its numbers: give tensors of larger numbers first.
#[expect(clippy::missing_panics_doc, reason = "the header is JSON with text keys, written to memory")]
pub fn safetensors_header(tensors: &[TensorEntry], metadata: &[(String, String)]) -> Vec<u8> {
    const ALIGNMENT: usize = 8;
    let mut file = vec![0; size_of::<u64>()];
    serde_json::to_writer(&mut file, &Header { tensors, metadata }).expect("text keys and numbers are valid JSON");
    file.resize(file.len().next_multiple_of(ALIGNMENT), b' ');
    let length = (file.len() - size_of::<u64>()) as u64;
    file[..size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
    file
}

/// A file with `tensors`, those of larger numbers first, then by name.
pub fn encode_safetensors(mut tensors: Vec<StoredTensor>, metadata: &[(String, String)]) -> Vec<u8> {
    tensors.sort_by(|one, other| {
        other.entry.element.cmp(&one.entry.element).then_with(|| one.entry.name.cmp(&other.entry.name))
    });
    let (entries, bytes): (Vec<_>, Vec<_>) =
        tensors.into_iter().map(|StoredTensor { entry, bytes }| (entry, bytes)).unzip();
    let mut file = safetensors_header(&entries, metadata);
    file.reserve_exact(bytes.iter().map(Vec::len).sum());
    for bytes in bytes {
        file.extend_from_slice(&bytes);
    }
    file
}

/// The JSON object of a file, with the tensors in their order.
struct Header<'a> {
    tensors: &'a [TensorEntry],
    metadata: &'a [(String, String)],
}

impl Serialize for Header<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            let metadata: serde_json::Map<_, _> =
                self.metadata.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            map.serialize_entry("__metadata__", &metadata)?;
        }
        let mut start = 0;
        for entry in self.tensors {
            let end = start + entry.bytes();
            let place = json!({
                "dtype": entry.element.safetensors_name(),
                "shape": entry.shape,
                "data_offsets": [start, end],
            });
            map.serialize_entry(&entry.name, &place)?;
            start = end;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype as CrateDtype, SafeTensors};

    #[test]
    fn a_header_is_read_by_the_formats_own_crate() {
        let entry = |name: &str, shape: &[usize]| TensorEntry {
            name: name.to_owned(),
            element: ElementType::Float16,
            shape: shape.to_vec(),
        };
        let tensors = [entry("1", &[1, 3]), entry("0", &[2])];
        let metadata = [("layer".to_owned(), "res3".to_owned())];
        let mut file = safetensors_header(&tensors, &metadata);
        assert_eq!(file.len() % 8, 0);
        file.extend(0..10);
        let read = SafeTensors::deserialize(&file).unwrap();
        let (one, two) = (read.tensor("1").unwrap(), read.tensor("0").unwrap());
        assert_eq!((one.shape(), one.data()), (&[1, 3][..], &[0, 1, 2, 3, 4, 5][..]));
        assert_eq!((two.shape(), two.data()), (&[2][..], &[6, 7, 8, 9][..]));
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["layer"], "res3");
    }

    #[test]
    fn a_file_holds_every_type_at_its_alignment() {
        let bytes = ndarray::array![1_u8, 0, 1];
        let (floats, matrix) = (ndarray::array![[0.5_f32, -1.0]], ndarray::array![[0.1_f64, 2.0], [3.0, f64::MAX]]);
        let tensors = vec![
            StoredTensor::new("0.inlier", bytes.view()),
            StoredTensor::new("0", floats.view()),
            StoredTensor::new("0.matrix", matrix.t()),
        ];
        let file = encode_safetensors(tensors, &[]);
        let read = SafeTensors::deserialize(&file).unwrap();
        let expect = |name: &str, dtype: CrateDtype, shape: &[usize], bytes: &[u8]| {
            let tensor = read.tensor(name).unwrap();
            assert_eq!((tensor.dtype(), tensor.shape(), tensor.data()), (dtype, shape, bytes), "{name}");
            let offset = tensor.data().as_ptr() as usize - file.as_ptr() as usize;
            assert_eq!(offset * 8 % dtype.bitsize(), 0, "{name} at {offset}");
        };
        expect("0.inlier", CrateDtype::U8, &[3], &[1, 0, 1]);
        expect("0", CrateDtype::F32, &[1, 2], &[0.5_f32.to_le_bytes(), (-1.0_f32).to_le_bytes()].concat());
        let transposed = [0.1, 3.0, 2.0, f64::MAX].map(f64::to_le_bytes).concat();
        expect("0.matrix", CrateDtype::F64, &[2, 2], &transposed);
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata(), &None);
    }

    #[test]
    fn a_file_without_tensors_is_read() {
        assert!(SafeTensors::deserialize(&encode_safetensors(Vec::new(), &[])).unwrap().is_empty());
    }
}
