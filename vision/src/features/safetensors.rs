//! The head of a safetensors file (<https://github.com/huggingface/safetensors>): its length as a little-endian u64, then
//! JSON that says where the numbers lie which follow it.
//!
//! The crate of that name writes files whose tensors exist; here only their shapes do.

use serde_json::{Map, Value, json};

use super::Dtype;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorEntry {
    /// What it is called.
    pub name: String,
    /// Sizes of its axes.
    pub shape: Vec<usize>,
}

/// What stands before the numbers of `tensors`, which follow one after the other; with `metadata` as pairs of text.
pub fn safetensors_header(tensors: &[TensorEntry], dtype: Dtype, metadata: &[(String, String)]) -> Vec<u8> {
    const ALIGNMENT: usize = 8;
    let dtype_name = match dtype {
        Dtype::Float32 => "F32",
        Dtype::Float16 => "F16",
    };
    let mut header = Map::new();
    let metadata = metadata.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    header.insert("__metadata__".to_owned(), Value::Object(metadata.collect()));
    let mut start = 0;
    for TensorEntry { name, shape } in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bytes();
        header.insert(name.clone(), json!({ "dtype": dtype_name, "shape": shape, "data_offsets": [start, end] }));
        start = end;
    }
    let mut text = Value::Object(header).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(ALIGNMENT), b' ');
    let mut file = (text.len() as u64).to_le_bytes().to_vec();
    file.append(&mut text);
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn someone_elses_reader_reads_it() {
        let entry = |name: &str, shape: &[usize]| TensorEntry { name: name.to_owned(), shape: shape.to_vec() };
        let tensors = [entry("0", &[1, 3]), entry("1", &[2])];
        let metadata = [("layer".to_owned(), "res3".to_owned())];
        let mut file = safetensors_header(&tensors, Dtype::Float16, &metadata);
        assert_eq!(file.len() % 8, 0);
        file.extend(0..10);
        let read = SafeTensors::deserialize(&file).unwrap();
        let (one, two) = (read.tensor("0").unwrap(), read.tensor("1").unwrap());
        assert_eq!((one.shape(), one.data()), (&[1, 3][..], &[0, 1, 2, 3, 4, 5][..]));
        assert_eq!((two.shape(), two.data()), (&[2][..], &[6, 7, 8, 9][..]));
        let (_, header) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(header.metadata().as_ref().unwrap()["layer"], "res3");
    }
}
