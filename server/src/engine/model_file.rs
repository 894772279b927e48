//! The file of one version of a model, held open for as long as somebody may run it.
//!
//! Its bytes are read again for each new cut, so that no parsed copy of the weights stays in memory
//! beside the sessions' own. An open file outlives its name: a model that was replaced by a rename,
//! or deleted, goes on working for those who still use it. One that was overwritten in place cannot,
//! and is told by its digest.

use std::fs::File;
use std::hash::{Hash, Hasher};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use densecl_models::{Manifest, ModelError, OnnxModel};
use sha2::{Digest, Sha256};

use super::EngineError;

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

/// Tells what was loaded at one time from everything that was loaded at others, of the same file or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelId(u64);

/// One version of a model as it was loaded. Two are equal if they come from one loading.
#[derive(Clone, Debug)]
pub struct ModelFile(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    id: ModelId,
    name: String,
    version: u32,
    path: PathBuf,
    file: File,
    /// SHA-256 of the file's bytes.
    file_digest: [u8; 32],
    /// SHA-256 of that and of the manifest, which may come from beside the file.
    digest: [u8; 32],
    manifest: Manifest,
}

impl ModelFile {
    /// Reads and checks the model at `path`; what it says of itself may lie in `manifest.json` beside it.
    ///
    /// # Errors
    /// If the file cannot be read or is not a model that can be served.
    pub fn open(name: &str, version: u32, path: &Path) -> Result<Self, ModelError> {
        let unreadable = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let bytes = whole(&file).map_err(unreadable)?;
        let file_digest = Sha256::digest(&bytes).into();
        let manifest = OnnxModel::decode_file(path, bytes.into())?.manifest().clone();
        Ok(Self(Arc::new(Opened {
            id: ModelId(NEXT_ID.fetch_add(1, Ordering::Relaxed)),
            name: name.to_owned(),
            version,
            path: path.to_owned(),
            file,
            file_digest,
            digest: with_manifest(&file_digest, &manifest),
            manifest,
        })))
    }

    /// What tells it from all others.
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

    /// Where it was found; somebody else may be there by now.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// SHA-256 of the file and of its manifest: models of equal digests answer alike.
    pub fn digest(&self) -> &[u8; 32] {
        &self.0.digest
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// Reads the model once more.
    pub(super) fn read(&self) -> Result<OnnxModel, EngineError> {
        let Opened { path, file, file_digest, manifest, .. } = &*self.0;
        let unreadable = |source| EngineError::Model { path: path.clone(), source };
        let bytes = whole(file).map_err(|source| unreadable(ModelError::Io { path: path.clone(), source }))?;
        let found: [u8; 32] = Sha256::digest(&bytes).into();
        if found != *file_digest {
            return Err(EngineError::FileChanged { name: self.0.name.clone(), version: self.0.version });
        }
        OnnxModel::decode(bytes.into(), || Ok(Some(manifest.clone()))).map_err(unreadable)
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

/// All bytes, wherever others have got to in the same file.
fn whole(file: &File) -> std::io::Result<Vec<u8>> {
    let length = usize::try_from(file.metadata()?.len()).map_err(std::io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn with_manifest(file_digest: &[u8; 32], manifest: &Manifest) -> [u8; 32] {
    // A struct of strings and numbers is always written.
    let manifest = serde_json::to_vec(manifest).unwrap_or_default();
    Sha256::new_with_prefix(file_digest).chain_update(manifest).finalize().into()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::super::probe;
    use super::*;

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
        assert!(matches!(file.read(), Err(EngineError::FileChanged { version: 1, .. })));
    }

    #[test]
    fn equal_content_has_equal_digests_but_is_not_the_same() {
        let (one, other) = (smallest(), smallest());
        assert_eq!(one.digest(), other.digest());
        assert_ne!(one, other);
        assert_eq!(one, one.clone());
    }
}
