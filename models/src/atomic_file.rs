//! Files and folders that appear under their name complete, by a rename, or not at all.
//!
//! Everything is written under a hidden temporary name in the folder of its destination, so that the rename never
//! crosses a file system. Dropping an [`AtomicFile`] or an [`AtomicFolder`] without `commit` deletes what was written;
//! the destination is then as it was.
//!
//! Permissions follow the umask, as those of files that programs create directly.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

/// First characters of temporary names.
const PREFIX: &str = ".writing-";

/// Writes `bytes` to the file at `path`, replacing what is there, and makes the folders above it.
///
/// # Errors
/// If the file cannot be written; what was at `path` is then as it was.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("report.json");
/// densecl_models::atomic_file::write(&path, b"{}")?;
/// assert_eq!(std::fs::read(path)?, b"{}");
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// A file that is being written under a temporary name.
#[derive(Debug)]
pub struct AtomicFile {
    file: NamedTempFile,
    destination: PathBuf,
}

impl AtomicFile {
    /// Creates the temporary file, and the folders above it.
    ///
    /// # Errors
    /// If the folder of `destination` cannot be written to.
    pub fn create(destination: &Path) -> io::Result<Self> {
        let folder = folder_of(destination);
        fs::create_dir_all(folder)?;
        // The mode that `File::create` asks for; without it, a temporary file is private to its owner.
        let mut builder = tempfile::Builder::new();
        let file = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
        Ok(Self { file, destination: destination.to_owned() })
    }

    /// Path of the file until `commit`.
    pub fn temporary_path(&self) -> &Path {
        self.file.path()
    }

    /// Flushes the content to disk, then gives the file its name in place of what has it now.
    ///
    /// # Errors
    /// If the content cannot be flushed or the file cannot be renamed.
    pub fn commit(self) -> io::Result<()> {
        self.file.as_file().sync_all()?;
        self.file.persist(&self.destination).map_err(|error| error.error)?;
        sync_folder(folder_of(&self.destination))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A folder that is being filled under a temporary name.
#[derive(Debug)]
pub struct AtomicFolder {
    folder: PathBuf,
    destination: PathBuf,
    /// Deletes what is left when it is dropped.
    _parent: TempDir,
}

impl AtomicFolder {
    /// Creates the temporary folder, and the folders above it.
    ///
    /// # Errors
    /// If the folder that holds `destination` cannot be written to.
    pub fn create(destination: &Path) -> io::Result<Self> {
        let above = folder_of(destination);
        fs::create_dir_all(above)?;
        // A temporary folder is private to its owner; the one inside it, which is renamed, is not.
        let parent = TempDir::with_prefix_in(PREFIX, above)?;
        let folder = parent.path().join("folder");
        fs::create_dir(&folder)?;
        Ok(Self { folder, destination: destination.to_owned(), _parent: parent })
    }

    /// Path of the folder until `commit`: what is written here appears at the destination.
    pub fn temporary_path(&self) -> &Path {
        &self.folder
    }

    /// Gives the folder its name. Files in it are not flushed to disk.
    ///
    /// # Errors
    /// If the destination exists and is not an empty folder, or cannot be written to.
    pub fn commit(self) -> io::Result<()> {
        fs::rename(&self.folder, &self.destination)?;
        sync_folder(folder_of(&self.destination))
    }
}

/// Folder that holds `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Flushes the names in a folder to disk: a rename may otherwise be lost with the machine's power.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::{env, thread};

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_file_is_replaced_when_it_is_committed_and_no_temporary_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/file");
        write(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(file.temporary_path().parent(), path.parent());
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(names(path.parent().unwrap()), ["file"]);
    }

    #[test]
    fn a_failure_leaves_the_old_file_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        write(&path, b"old").unwrap();
        let fail = || -> io::Result<()> {
            let mut file = AtomicFile::create(&path)?;
            file.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert_eq!(fail().unwrap_err().kind(), io::ErrorKind::StorageFull);
        let panics = thread::scope(|scope| {
            let panics = scope.spawn(|| {
                let _file = AtomicFile::create(&path).unwrap();
                panic!("expected by the test");
            });
            panics.join().is_err()
        });
        assert!(panics);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn a_rename_that_fails_leaves_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        write(&path.join("inside"), b"old").unwrap();
        write(&path, b"new").unwrap_err();
        AtomicFolder::create(&path).unwrap().commit().unwrap_err();
        assert_eq!(fs::read(path.join("inside")).unwrap(), b"old");
        assert_eq!(names(folder.path()), ["taken"]);
    }

    #[test]
    fn a_folder_appears_when_it_is_committed() {
        let parent = tempfile::tempdir().unwrap();
        for destination in [parent.path().join("absent"), parent.path().join("empty")] {
            let folder = AtomicFolder::create(&destination).unwrap();
            fs::write(folder.temporary_path().join("file"), b"new").unwrap();
            let exists = destination.ends_with("empty");
            if exists {
                fs::create_dir(&destination).unwrap();
            }
            assert_eq!(destination.exists(), exists);
            folder.commit().unwrap();
            assert_eq!(names(&destination), ["file"]);
        }
        AtomicFolder::create(&parent.path().join("dropped")).unwrap();
        assert_eq!(names(parent.path()), ["absent", "empty"]);
    }

    /// Runs itself in processes of different umasks, which cannot be changed for one test among threads.
    #[test]
    fn permissions_follow_the_umask() {
        const OUT: &str = "DENSECL_TEST_UMASK_OUT";
        if let Some(out) = env::var_os(OUT).map(PathBuf::from) {
            write(&out.join("file"), b"content").unwrap();
            return AtomicFolder::create(&out.join("folder")).unwrap().commit().unwrap();
        }
        for (umask, file, folder) in [("022", 0o644, 0o755), ("007", 0o660, 0o770), ("077", 0o600, 0o700)] {
            let out = tempfile::tempdir().unwrap();
            let status = Command::new("sh")
                .args(["-c", "umask $0 && exec \"$@\"", umask])
                .arg(env::current_exe().unwrap())
                .args(["--exact", "atomic_file::tests::permissions_follow_the_umask"])
                .env(OUT, out.path())
                .status()
                .unwrap();
            assert!(status.success());
            let mode = |name| fs::metadata(out.path().join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode("file"), mode("folder")), (file, folder), "umask {umask}");
        }
    }
}
