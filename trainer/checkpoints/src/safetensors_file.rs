//! safetensors files: their header is read, the data stay where they are.

use std::collections::BTreeMap;

use safetensors::tensor::Metadata;

use crate::dtype::DType;
use crate::open_error::OpenError;
use crate::pickle::{Graph, Limits, Storage, StorageLocation, StringData, StringValue, Tensor, Value, row_major};
use crate::source::Source;

/// Largest header that is read; a ResNet-101 with its optimiser takes a tenth.
const MAX_HEADER: u64 = 4 << 20;
const LENGTH: u64 = 8;

/// Header of a file.
pub(crate) struct Header {
    pub(crate) graph: Graph,
    /// A dictionary of tensors.
    pub(crate) root: Value,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Reads the header; the crate checks that the tensors fill the data without gap or overlap.
pub(crate) fn read(source: &Source) -> Result<Header, OpenError> {
    let len = u64::from_le_bytes(source.array(0)?);
    if len > MAX_HEADER {
        return Err(OpenError::Content(format!("the safetensors header is {len} bytes long; {MAX_HEADER} are read")));
    }
    let json = source.read(LENGTH, len)?;
    let metadata: Metadata = serde_json::from_slice(&json)
        .map_err(|error| OpenError::Content(format!("the safetensors header is not valid: {error}")))?;
    let data = LENGTH + len;
    if source.len() - data != metadata.data_len() as u64 {
        let found = source.len() - data;
        let expected = metadata.data_len();
        return Err(OpenError::Content(format!("the safetensors file has {found} bytes of data, not {expected}")));
    }
    let tensors = metadata.tensors();
    if tensors.len() > Limits::DEFAULT.tensors {
        return Err(OpenError::Content(format!("the safetensors file has {} tensors", tensors.len())));
    }
    let mut graph = Graph::default();
    let mut entries = Vec::new();
    for (name, info) in tensors.into_iter().collect::<BTreeMap<_, _>>() {
        let dtype = DType::from_safetensors(info.dtype).ok_or_else(|| {
            OpenError::Content(format!("`{name}` has type {:?}, which is not read; save it as float32", info.dtype))
        })?;
        let shape: Vec<u64> = info.shape.iter().map(|&length| length as u64).collect();
        let (start, end) = (data + info.data_offsets.0 as u64, data + info.data_offsets.1 as u64);
        let location = StorageLocation::Data(StringData::Raw(start..end));
        let storage = graph.add_storage(Storage { dtype, len: (end - start) / dtype.size(), location });
        let tensor = Tensor { strides: row_major(&shape), shape, offset: 0, storage };
        let tensor = graph.add_tensor(Some(tensor));
        let key = graph.add_string(StringValue { data: StringData::Unescaped([].into()), text: Some(name.into()) });
        entries.push((key, tensor));
    }
    let root = graph.add_dict(entries);
    let metadata = metadata.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(Header { graph, root, metadata })
}
