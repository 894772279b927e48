//! Named tensors in a safetensors file.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, View};
use tch::{Device, Kind, Tensor};

/// Tensors by name, with the file's own remarks.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// Tensors on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's `__metadata__`.
    pub metadata: BTreeMap<String, String>,
}

/// A tensor that is not in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is missing")]
pub struct MissingTensor(pub String);

/// A tensor file that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TensorFileError {
    /// The operating system refused.
    #[error("cannot access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Not a safetensors file, or cut off.
    #[error("{path} is not a whole safetensors file")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The error.
        source: safetensors::SafeTensorError,
    },
    /// A tensor has a type that is not read here.
    #[error("`{name}` has type {dtype:?}; float16, bfloat16, float32, float64, int64 and uint8 are read")]
    Dtype {
        /// The tensor.
        name: String,
        /// Its type.
        dtype: Dtype,
    },
}

impl TensorFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// If it cannot be read, is not a whole safetensors file, or holds a type not read here.
    pub fn read(path: &Path) -> Result<Self, TensorFileError> {
        let bytes = fs::read(path).map_err(|source| TensorFileError::Io { path: path.to_owned(), source })?;
        Self::decode(&bytes, path)
    }

    /// Reads bytes that came from `path`.
    ///
    /// # Errors
    /// The errors of [`TensorFile::read`].
    pub fn decode(bytes: &[u8], path: &Path) -> Result<Self, TensorFileError> {
        let malformed = |source| TensorFileError::Malformed { path: path.to_owned(), source };
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(malformed)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let file = SafeTensors::deserialize(bytes).map_err(malformed)?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            let kind = kind_of(view.dtype())
                .ok_or_else(|| TensorFileError::Dtype { name: name.to_owned(), dtype: view.dtype() })?;
            let size: Vec<i64> = view.shape().iter().map(|&dim| dim as i64).collect();
            tensors.insert(name.to_owned(), Tensor::from_data_size(view.data(), &size, kind));
        }
        Ok(Self { tensors, metadata })
    }

    /// Writes the file and flushes it to disk.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TensorFileError> {
        let io = |source| TensorFileError::Io { path: path.to_owned(), source };
        let bytes = self.encode().map_err(|source| TensorFileError::Malformed { path: path.to_owned(), source })?;
        let mut file = fs::File::create(path).map_err(io)?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(io)
    }

    /// Encodes the file.
    ///
    /// # Errors
    /// If a tensor has a type that the format lacks.
    pub fn encode(&self) -> Result<Vec<u8>, safetensors::SafeTensorError> {
        let views = self.tensors.iter().map(|(name, tensor)| (name, TensorBytes::from_tensor(tensor)));
        let metadata: HashMap<_, _> = self.metadata.clone().into_iter().collect();
        safetensors::serialize(views, Some(metadata))
    }

    /// A tensor by name, or an error that names it.
    ///
    /// # Errors
    /// If it is not there.
    pub fn get(&self, name: &str) -> Result<&Tensor, MissingTensor> {
        self.tensors.get(name).ok_or_else(|| MissingTensor(name.to_owned()))
    }
}

/// A tensor's bytes in the format's order.
struct TensorBytes {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl TensorBytes {
    fn from_tensor(tensor: &Tensor) -> Self {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let (dtype, kind) = match tensor.kind() {
            Kind::Double => (Dtype::F64, Kind::Double),
            Kind::Half => (Dtype::F16, Kind::Half),
            Kind::BFloat16 => (Dtype::BF16, Kind::BFloat16),
            Kind::Int64 => (Dtype::I64, Kind::Int64),
            Kind::Uint8 => (Dtype::U8, Kind::Uint8),
            _ => (Dtype::F32, Kind::Float),
        };
        let tensor = tensor.to_kind(kind);
        let mut data = vec![0; tensor.numel() * dtype.bitsize() / 8];
        tensor.copy_data_u8(&mut data, tensor.numel());
        Self { dtype, shape: tensor.size().iter().map(|&dim| dim as usize).collect(), data }
    }
}

impl View for TensorBytes {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F64 => Kind::Double,
        Dtype::F32 => Kind::Float,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let mut file = TensorFile::default();
        file.metadata.insert("step".to_owned(), "3".to_owned());
        let x = Tensor::arange(24, (Kind::Double, Device::Cpu)).view([2, 3, 4]);
        file.tensors.insert("permuted".to_owned(), x.permute([2, 0, 1]));
        file.tensors.insert("integers".to_owned(), Tensor::from_slice(&[1_i64, -2]));
        file.tensors.insert("scalar".to_owned(), Tensor::from(0.5_f64));
        file.write(&path).unwrap();
        let read = TensorFile::read(&path).unwrap();
        assert_eq!(read.metadata, file.metadata);
        for (name, tensor) in &file.tensors {
            assert_eq!(read.get(name).unwrap(), tensor, "{name}");
        }
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 8]).unwrap();
        assert!(matches!(TensorFile::read(&path), Err(TensorFileError::Malformed { .. })));
    }
}
