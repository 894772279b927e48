//! safetensors files are read back by the format's own reader.

use std::collections::BTreeMap;

use densecl_vision::features::{Dtype, EncodedTensor, NumberForm, TensorEntry, safetensors_header};
use safetensors::SafeTensors;

use super::numbers::{Numbers, values};

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let mut numbers = Numbers(input);
    let dtype = if numbers.byte() % 2 == 0 { Dtype::Float32 } else { Dtype::Float16 };
    let mut metadata = BTreeMap::new();
    for _ in 0..numbers.byte() % 4 {
        metadata.insert(text(&mut numbers), text(&mut numbers));
    }
    let mut tensors = BTreeMap::new();
    for _ in 0..numbers.byte() % 4 {
        let (name, step) = (text(&mut numbers), numbers.size(7));
        if let Some(tensor) = numbers.rendered()
            && name != "__metadata__"
        {
            values(&*tensor, step);
            tensors.insert(name, tensor);
        }
    }
    let entries: Vec<TensorEntry> = tensors
        .iter()
        .map(|(name, tensor)| TensorEntry { name: name.clone(), element: dtype.into(), shape: tensor.shape() })
        .collect();
    let pairs: Vec<(String, String)> = metadata.clone().into_iter().collect();
    let mut file = safetensors_header(&entries, &pairs);
    let mut expected = BTreeMap::new();
    for (name, tensor) in tensors {
        let shape = tensor.shape();
        let encoded = EncodedTensor::new(tensor, NumberForm::Binary(dtype));
        let bytes: Vec<u8> = (0..encoded.pieces()).flat_map(|piece| encoded.piece(piece)).collect();
        assert_eq!(encoded.bytes(), Some(bytes.len() as u64));
        file.extend(&bytes);
        expected.insert(name, (shape, bytes));
    }
    let read = SafeTensors::deserialize(&file).expect("a valid file");
    assert_eq!(read.len(), expected.len());
    for (name, (shape, bytes)) in expected {
        let tensor = read.tensor(&name).expect("it was written");
        assert_eq!((tensor.shape(), tensor.data()), (&shape[..], &bytes[..]));
    }
    let (_, header) = SafeTensors::read_metadata(&file).expect("a valid head");
    let read = header.metadata().clone().unwrap_or_default();
    assert_eq!(read.into_iter().collect::<BTreeMap<_, _>>(), metadata);
}

/// A few characters, of any kind.
fn text(numbers: &mut Numbers<'_>) -> String {
    let bytes: Vec<u8> = (0..numbers.byte() % 16).map(|_| numbers.byte()).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
