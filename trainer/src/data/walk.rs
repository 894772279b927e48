//! The one walk through folders of images: for training, calibration and evaluation.
//!
//! Folders are searched to any depth. Hidden names and those of systems are passed over. Links are followed; a folder is
//! searched once, however many links lead to it, so that loops end; a link to a file is an image of its own. Nothing is
//! decoded.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use densecl_vision::image::{is_ignored_name, is_picture_extension};
use walkdir::{DirEntry, WalkDir};

use super::Tally;
use super::passed_over::{PassedOverReason, reason_of_ending};

/// Image files below a folder, and what else is there.
#[derive(Debug, Default)]
pub(crate) struct FoundImages {
    /// The files, in the order of their paths, or of the list that names them.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) passed_over: Tally<PassedOverReason>,
}

/// A folder that cannot be searched.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}")]
pub(crate) struct WalkError {
    /// The folder, or an entry of one.
    pub(crate) path: PathBuf,
    /// The error of the operating system.
    pub(crate) source: io::Error,
}

/// Finds the images below `root`, which may have any name and may be a link.
///
/// # Errors
/// If a folder cannot be listed.
pub(crate) fn find_images(root: &Path) -> Result<FoundImages, WalkError> {
    let mut search = Search::default();
    search.below(root)?;
    // Links wait until all real folders are searched, so that images have their real paths where they have one.
    while let Some(link) = search.linked_folders.pop_front() {
        if is_loop(&link) {
            search.found.passed_over.note(PassedOverReason::Loop, link.display());
        } else {
            search.below(&link)?;
        }
    }
    // The order in which a folder lists its entries differs between systems.
    search.found.paths.sort_unstable();
    Ok(search.found)
}

/// The entries of a folder by name, without hidden ones and those of systems.
///
/// # Errors
/// If it cannot be listed.
pub(crate) fn visible_entries(folder: &Path) -> Result<Vec<PathBuf>, WalkError> {
    let unreadable = |source| WalkError { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !is_ignored_name(&entry.file_name()) {
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

#[derive(Default)]
struct Search {
    found: FoundImages,
    /// Device and number of the folders that were searched.
    searched: HashSet<(u64, u64)>,
    linked_folders: VecDeque<PathBuf>,
}

impl Search {
    fn below(&mut self, top: &Path) -> Result<(), WalkError> {
        let mut walk = WalkDir::new(top).sort_by_file_name().into_iter();
        while let Some(entry) = walk.next() {
            let entry = entry.map_err(|error| walk_error(top, error))?;
            // The top may be a link itself.
            let is_folder = entry.depth() == 0 || entry.file_type().is_dir();
            if is_ignored(&entry) {
                // Its listing is dropped, or the error of listing it: a hidden folder may not be readable.
                if is_folder {
                    walk.skip_current_dir();
                }
                if is_folder || is_image(entry.path()) {
                    self.found.passed_over.note(PassedOverReason::SystemName, entry.path().display());
                }
            } else if is_folder {
                let metadata =
                    fs::metadata(entry.path()).map_err(|source| WalkError { path: entry.path().to_owned(), source })?;
                if !self.searched.insert((metadata.dev(), metadata.ino())) {
                    walk.skip_current_dir();
                    self.found.passed_over.note(PassedOverReason::FolderAgain, entry.path().display());
                }
            } else if entry.file_type().is_symlink() {
                self.follow(entry.into_path());
            } else {
                self.file(entry.path(), entry.file_type().is_file());
            }
        }
        Ok(())
    }

    /// A link below the top.
    fn follow(&mut self, link: PathBuf) {
        match fs::metadata(&link) {
            Ok(metadata) if metadata.is_dir() => self.linked_folders.push_back(link),
            Ok(metadata) => self.file(&link, metadata.is_file()),
            Err(_) => self.found.passed_over.note(PassedOverReason::BrokenLink, link.display()),
        }
    }

    fn file(&mut self, path: &Path, is_file: bool) {
        if !is_file {
            self.found.passed_over.note(PassedOverReason::NoFile, path.display());
        } else if is_image(path) {
            self.found.paths.push(path.to_owned());
        } else {
            self.found.passed_over.note(reason_of_ending(path), path.display());
        }
    }
}

/// The folder that is searched may have any name.
fn is_ignored(entry: &DirEntry) -> bool {
    entry.depth() > 0 && is_ignored_name(entry.file_name())
}

/// Returns whether a path has an image's ending.
pub(super) fn is_image(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(is_picture_extension)
}

/// Returns whether a link leads to a folder that contains it.
fn is_loop(link: &Path) -> bool {
    let folder = link.parent().map(Path::canonicalize);
    matches!((folder, link.canonicalize()), (Some(Ok(folder)), Ok(target)) if folder.starts_with(&target))
}

fn walk_error(top: &Path, error: walkdir::Error) -> WalkError {
    let path = error.path().unwrap_or(top).to_owned();
    let source = error.into_io_error().unwrap_or_else(|| io::Error::other("its links form a loop"));
    WalkError { path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    fn names(root: &Path) -> (Vec<String>, Tally<PassedOverReason>) {
        let FoundImages { paths, passed_over } = find_images(root).unwrap();
        let name = |path: &PathBuf| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        (paths.iter().map(name).collect(), passed_over)
    }

    #[test]
    fn what_systems_leave_is_no_image_at_any_depth() {
        let root = tempfile::tempdir().unwrap();
        // A data set may lie in a hidden folder itself.
        let root = root.path().join(".data");
        for name in ["a.jpg", "b/c.PNG", "b/d/e.tiff"] {
            write(&root.join(name));
        }
        let hidden = ["._a.jpg", "b/._c.PNG", ".thumbs/x.jpg", "__MACOSX/b/._c.PNG", "b/@eaDir/c.PNG/thumb.jpg"];
        for name in hidden {
            write(&root.join(name));
        }
        for name in ["Thumbs.db", ".DS_Store", "b/desktop.ini", "lost+found/z.jpg", "@eaDir/z.jpg"] {
            write(&root.join(name));
        }
        let (found, passed_over) = names(&root);
        assert_eq!(found, ["a.jpg", "b/c.PNG", "b/d/e.tiff"]);
        // Folders count once; files that would not be images without their names do not count.
        assert_eq!(passed_over.count(PassedOverReason::SystemName), 7);
        assert_eq!(passed_over.total(), 7);
    }

    #[test]
    fn other_files_are_counted_by_what_they_are() {
        let root = tempfile::tempdir().unwrap();
        for name in ["a.jpg", "a.heic", "b.GIF", "c.tar.gz", "d.zip", "notes.txt", "README"] {
            write(&root.path().join(name));
        }
        let _pipe = std::os::unix::net::UnixListener::bind(root.path().join("e.jpg")).unwrap();
        let (found, passed_over) = names(root.path());
        assert_eq!(found, ["a.jpg"]);
        let counts = [
            PassedOverReason::UnreadKind,
            PassedOverReason::Archive,
            PassedOverReason::OtherEnding,
            PassedOverReason::NoFile,
        ];
        assert_eq!(counts.map(|reason| passed_over.count(reason)), [2, 2, 2, 1]);
    }

    #[test]
    fn links_are_followed_and_folders_searched_once() {
        let elsewhere = tempfile::tempdir().unwrap();
        for name in ["n01/1.jpg", "n01/deep/2.jpg", "n02/3.jpg"] {
            write(&elsewhere.path().join(name));
        }
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        fs::create_dir_all(root.join("real/z")).unwrap();
        write(&root.join("real/z/4.jpg"));
        symlink(elsewhere.path().join("n01"), root.join("n01")).unwrap();
        symlink(elsewhere.path().join("n02"), root.join("real/n02")).unwrap();
        symlink(elsewhere.path().join("n02/3.jpg"), root.join("linked.jpg")).unwrap();
        // The same folder again, a folder of this root, loops of several forms, and a link to nothing.
        symlink(elsewhere.path().join("n01"), root.join("a-again")).unwrap();
        symlink(root.join("real/z"), root.join("a-z")).unwrap();
        symlink(".", root.join("here")).unwrap();
        symlink("../..", root.join("real/z/up")).unwrap();
        symlink("..", root.join("outside")).unwrap();
        symlink("self", root.join("self")).unwrap();
        symlink("nowhere.jpg", root.join("broken.jpg")).unwrap();
        let (found, passed_over) = names(root);
        let expected = ["a-again/1.jpg", "a-again/deep/2.jpg", "linked.jpg", "real/n02/3.jpg", "real/z/4.jpg"];
        assert_eq!(found, expected);
        let counts = [PassedOverReason::Loop, PassedOverReason::FolderAgain, PassedOverReason::BrokenLink];
        assert_eq!(counts.map(|reason| passed_over.count(reason)), [3, 2, 2], "{passed_over}");
        // The root itself may be a link.
        let link = elsewhere.path().join("link");
        symlink(root, &link).unwrap();
        assert_eq!(names(&link).0, expected);
    }

    #[test]
    fn links_from_folder_to_folder_end() {
        let root = tempfile::tempdir().unwrap();
        let folders: Vec<String> = (0..12).map(|i| format!("f{i}")).collect();
        for folder in &folders {
            write(&root.path().join(folder).join("1.jpg"));
            for other in &folders {
                symlink(root.path().join(other), root.path().join(folder).join(format!("to-{other}"))).unwrap();
            }
        }
        let (found, passed_over) = names(root.path());
        assert_eq!(found.len(), 12);
        assert_eq!(passed_over.total(), 144);
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = find_images(&root.path().join("gone")).unwrap_err();
        assert!(error.to_string().contains("gone") && error.source.kind() == io::ErrorKind::NotFound);
        assert!(visible_entries(&root.path().join("gone")).is_err());
        write(&root.path().join("b"));
        write(&root.path().join("a"));
        write(&root.path().join("._a"));
        let entries = visible_entries(root.path()).unwrap();
        assert_eq!(entries, ["a", "b"].map(|name| root.path().join(name)));
    }
}
