//! A folder of models: `<repository>/<name>/<version>/model.onnx`, the layout that Triton reads.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::manifest::is_model_name;

/// Name of the model file inside a version's folder.
pub const MODEL_FILE: &str = "model.onnx";

/// One version of a model, found but not yet opened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelVersion {
    /// The model's folder name.
    pub name: String,
    /// The version's folder name, a positive integer.
    pub version: u32,
    /// The ONNX file.
    pub path: PathBuf,
}

/// The repository could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The folder, or one below it, cannot be listed.
    #[error("cannot read the model repository at {path}")]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// There is no model in it.
    #[error("no model in {path}: expected <name>/<version>/{MODEL_FILE}")]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// Lists all models of a repository, by name and then by ascending version.
///
/// Folders whose name is not a model's, or not a positive integer below that, are passed over,
/// as are versions without a model file.
///
/// # Errors
/// If the folder cannot be read or holds no model at all.
pub fn scan(root: &Path) -> Result<Vec<ModelVersion>, RepositoryError> {
    let mut found = Vec::new();
    for (name, folder) in folders(root)? {
        if !is_model_name(&name) {
            continue;
        }
        for (version, folder) in folders(&folder)? {
            let path = folder.join(MODEL_FILE);
            if let Some(version) = parse_version(&version)
                && path.is_file()
            {
                found.push(ModelVersion { name: name.clone(), version, path });
            }
        }
    }
    if found.is_empty() {
        return Err(RepositoryError::Empty { path: root.to_owned() });
    }
    found.sort();
    Ok(found)
}

/// `1`, `2`, …; not `01` or `+1`, which would name the same version twice.
fn parse_version(folder: &str) -> Option<u32> {
    let version: u32 = folder.parse().ok()?;
    (version > 0 && version.to_string() == folder).then_some(version)
}

fn folders(path: &Path) -> Result<Vec<(String, PathBuf)>, RepositoryError> {
    let unreadable = |source| RepositoryError::Unreadable { path: path.to_owned(), source };
    let mut folders = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
        {
            folders.push((name, entry.path()));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, file: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn lists_versions_as_numbers() {
        let root = tempfile::tempdir().unwrap();
        for file in
            ["b/1/model.onnx", "a/10/model.onnx", "a/9/model.onnx", "a/09/model.onnx", "a/x/model.onnx", "a/11/other"]
        {
            touch(root.path(), file);
        }
        let found: Vec<_> = scan(root.path()).unwrap().into_iter().map(|m| (m.name, m.version)).collect();
        assert_eq!(found, [("a".to_owned(), 9), ("a".to_owned(), 10), ("b".to_owned(), 1)]);
    }

    #[test]
    fn an_empty_folder_is_an_error_that_says_what_was_expected() {
        let root = tempfile::tempdir().unwrap();
        let message = scan(root.path()).unwrap_err().to_string();
        assert!(message.contains("<name>/<version>/model.onnx"), "{message}");
        assert!(matches!(scan(&root.path().join("gone")), Err(RepositoryError::Unreadable { .. })));
    }
}
