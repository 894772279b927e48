//! The file of one version of a model, held open for as long as requests may run it.
//!
//! Its bytes are read again for each new cut, so that no parsed copy of the weights stays in memory
//! beside the sessions' own. An open file outlives its name: a model that was replaced by a rename,
//! or deleted, goes on working for those who still use it. One that was overwritten in place cannot,
//! and is told by its digest.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use densecl_models::{Manifest, ModelError, OnnxModel};
use sha2::{Digest, Sha256};

use crate::backend::{BackendError, BackendModel, ModelId};

/// One version of a model as it was loaded. Two are equal if they come from one loading.
#[derive(Clone, Debug)]
pub struct ModelFile(Arc<OpenedFile>);

#[derive(Debug)]
struct OpenedFile {
    id: ModelId,
    name: String,
    version: u32,
    path: PathBuf,
    file: File,
    /// SHA-256 of the file's bytes.
    file_digest: [u8; 32],
    /// SHA-256 of the files beside it that hold weights.
    beside_digest: [u8; 32],
    /// SHA-256 of these and of the manifest, which may come from beside the file.
    digest: [u8; 32],
    manifest: Manifest,
}

impl ModelFile {
    /// Reads and checks the model at `path`; what it says of itself may lie in `manifest.json` beside it.
    ///
    /// # Errors
    /// If the file cannot be read or is not a model that can be served.
    pub fn open(name: &str, version: u32, path: &Path) -> Result<Self, ModelError> {
        let file = OnnxModel::open_file(path)?;
        let bytes = OnnxModel::read_file(&file, path)?;
        let file_digest = Sha256::digest(&bytes).into();
        let model = OnnxModel::decode_file(path, bytes)?;
        let (beside_digest, manifest) = (digest_beside(&model), model.manifest().clone());
        Ok(Self(Arc::new(OpenedFile {
            id: ModelId::next(),
            name: name.to_owned(),
            version,
            path: path.to_owned(),
            file,
            file_digest,
            beside_digest,
            digest: whole_digest(&file_digest, &beside_digest, &manifest),
            manifest,
        })))
    }

    /// The id of this loading.
    pub fn id(&self) -> ModelId {
        self.0.id
    }

    /// The model's name in the repository.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its version.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// The path that it was opened at; another file may be there by now.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// SHA-256 of the files and of the manifest: models of equal digests answer alike.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }

    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Reads the model once more.
    pub(crate) fn read(&self) -> Result<OnnxModel, BackendError> {
        let OpenedFile { path, file, file_digest, beside_digest, manifest, .. } = &*self.0;
        let unreadable = |source| BackendError::Model { path: path.clone(), source };
        let changed = || BackendError::FileChanged { name: self.0.name.clone(), version: self.0.version };
        let bytes = OnnxModel::read_file(file, path).map_err(unreadable)?;
        if Sha256::digest(&bytes)[..] != file_digest[..] {
            return Err(changed());
        }
        let model = OnnxModel::decode_file_with(path, bytes, || Ok(Some(manifest.clone()))).map_err(unreadable)?;
        if digest_beside(&model) == *beside_digest { Ok(model) } else { Err(changed()) }
    }
}

impl BackendModel for ModelFile {
    fn id(&self) -> ModelId {
        self.0.id
    }
}

impl PartialEq for ModelFile {
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}

impl Eq for ModelFile {}

impl Hash for ModelFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id().hash(state);
    }
}

fn digest_beside(model: &OnnxModel) -> [u8; 32] {
    model.external_files().fold(Sha256::new(), |digest, (_, content)| digest.chain_update(content)).finalize().into()
}

fn whole_digest(file: &[u8; 32], beside: &[u8; 32], manifest: &Manifest) -> [u8; 32] {
    // A struct of strings and numbers is always written.
    let manifest = serde_json::to_vec(manifest).unwrap_or_default();
    Sha256::new_with_prefix(file).chain_update(beside).chain_update(manifest).finalize().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;
    use crate::onnx_runtime::probe;

    /// The smallest model there is.
    pub(crate) fn smallest() -> ModelFile {
        let folder = tempfile::tempdir().expect("a folder");
        in_folder(folder.path())
    }

    fn in_folder(folder: &Path) -> ModelFile {
        let path = folder.join("model.onnx");
        fs::write(&path, probe::model().expect("a model")).expect("a file");
        ModelFile::open("m", 1, &path).expect("a model")
    }

    #[test]
    fn a_file_that_is_gone_can_still_be_read() {
        assert_eq!(smallest().read().expect("the folder is gone, not the file").manifest().name, "probe");
    }

    #[test]
    fn a_file_that_was_replaced_stays_what_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = in_folder(folder.path());
        let aside = folder.path().join("aside");
        fs::write(&aside, b"another").expect("a file");
        fs::rename(aside, file.path()).expect("a rename");
        assert!(file.read().is_ok());
    }

    #[test]
    fn a_file_that_was_overwritten_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = in_folder(folder.path());
        fs::write(file.path(), b"another").expect("a file");
        assert!(matches!(file.read(), Err(BackendError::FileChanged { version: 1, .. })));
    }

    #[test]
    fn weights_beside_the_file_are_a_part_of_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.onnx");
        let weights = folder.path().join("weights");
        fs::write(&path, probe_with_weights_beside()).expect("a file");
        fs::write(&weights, [1; 4]).expect("a file");
        let file = ModelFile::open("m", 1, &path).expect("a model");
        assert!(file.read().is_ok());
        fs::write(&weights, [2; 4]).expect("a file");
        assert!(matches!(file.read(), Err(BackendError::FileChanged { version: 1, .. })));
        assert_ne!(ModelFile::open("m", 1, &path).expect("a model").digest(), file.digest());
    }

    /// The smallest model, with an unused number in the file `weights`.
    fn probe_with_weights_beside() -> Vec<u8> {
        use densecl_models::proto::{ModelProto, StringStringEntryProto, TensorProto, tensor_proto};
        use prost::Message as _;
        let mut model = ModelProto::decode(&probe::model().expect("a model")[..]).expect("it was just written");
        let location = StringStringEntryProto { key: Some("location".into()), value: Some("weights".into()) };
        model.graph.as_mut().expect("a graph").initializer.push(TensorProto {
            name: Some("number".into()),
            data_type: Some(tensor_proto::DataType::Float as i32),
            data_location: Some(tensor_proto::DataLocation::External as i32),
            external_data: vec![location],
            ..TensorProto::default()
        });
        model.encode_to_vec()
    }

    #[test]
    fn equal_content_has_equal_digests_but_is_not_the_same() {
        let (one, other) = (smallest(), smallest());
        assert_eq!(one.digest(), other.digest());
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
    }
}
