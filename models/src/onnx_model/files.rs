//! Reads the files of a model, up to a maximum length.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::ModelError;

/// Protobuf, and with it ONNX, ends at 2 GiB; weights that lie beside the file become a part of it.
pub(super) const MAX_MODEL_BYTES: u64 = (2 << 30) - 1;

/// A whole file, of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Bytes, ModelError> {
    read_open(&open(path)?, path, limit)
}

/// Opens a regular file. Opening a pipe would block, and a device never ends.
pub(super) fn open(path: &Path) -> Result<File, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    if !path.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    File::open(path).map_err(failed)
}

/// All of an open file, from its beginning, if that is at most `limit` bytes.
pub(super) fn read_open(file: &File, path: &Path, limit: u64) -> Result<Bytes, ModelError> {
    let failed = |source| ModelError::Io { path: path.to_owned(), source };
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(ModelError::FileTooLarge { path: path.to_owned(), bytes: length, limit });
    }
    // The length of this moment: another process may be appending to the file.
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes.into())
}

/// The last part of a path. Messages never contain the rest of it.
pub(super) fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| "the file".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The file called `location` in `folder`, if it is really in there.
///
/// # Errors
/// Returns what is wrong with the location or with the file.
pub(super) fn inside(folder: &Path, location: &str) -> Result<PathBuf, String> {
    let relative = Path::new(location);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    // A backslash would be a separator on other systems.
    if location.is_empty() || location.contains(['\\', '\0']) || !relative.components().all(is_plain) {
        return Err("it must be the name of a file in the model's own folder".to_owned());
    }
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("it cannot be found: {error}"));
    let path = real(&folder.join(relative))?;
    if !path.starts_with(real(folder)?) {
        return Err("a link leads out of the model's folder: copy the file there instead".to_owned());
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_read_up_to_a_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap().len(), 100);
        let error = read(&path, 99).unwrap_err();
        assert!(matches!(error, ModelError::FileTooLarge { bytes: 100, limit: 99, .. }));
        assert!(!error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
        assert!(matches!(read(folder.path(), 100), Err(ModelError::Io { .. })));
        // It says that it is empty, and never ends.
        assert!(matches!(read(Path::new("/dev/zero"), 100), Err(ModelError::Io { .. })));
    }

    #[test]
    fn locations_stay_inside() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("1");
        fs::create_dir_all(folder.join("parts")).unwrap();
        for file in ["secret", "1/weights", "1/parts/weights"] {
            fs::write(root.path().join(file), b"x").unwrap();
        }
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        std::os::unix::fs::symlink("weights", folder.join("honest")).unwrap();
        for fine in ["weights", "parts/weights", "honest"] {
            assert!(inside(&folder, fine).is_ok(), "{fine}");
        }
        let absolute = folder.join("weights");
        for (outside, expected) in [
            ("../secret", "in the model's own folder"),
            ("parts/../../secret", "in the model's own folder"),
            (absolute.to_str().unwrap(), "in the model's own folder"),
            ("..\\secret", "in the model's own folder"),
            ("", "in the model's own folder"),
            ("link", "leads out"),
            ("gone", "cannot be found"),
        ] {
            let reason = inside(&folder, outside).unwrap_err();
            assert!(
                reason.contains(expected) && !reason.contains(root.path().to_str().unwrap()),
                "{outside}: {reason}"
            );
        }
    }
}
