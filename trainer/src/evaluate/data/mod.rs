//! Labelled images in the folders that data sets come as.
//!
//! Whatever is wrong with a folder is found before anything is trained: the error says what was
//! looked for and what was there.

mod cityscapes;
mod label_map;
mod labelled_folder;
mod picture;
mod segmentation_set;
mod voc;

use std::path::{Path, PathBuf};
use std::{fs, io};

pub use labelled_folder::{LabelledFiles, LabelledFolder};
pub use picture::{Picture, Window};
pub use segmentation_set::{DataSplit, LabelledPicture, SegmentationSet, Splits};

/// A folder or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The operating system refused.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file is no image, or a broken one.
    #[error("cannot decode the image {path}")]
    Image {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: image::ImageError,
    },
    /// A file holds no labels.
    #[error("{path} is no label map: {reason}")]
    LabelMap {
        /// The file.
        path: PathBuf,
        /// What was found, and what would do.
        reason: String,
    },
    /// Not a folder of the form that was expected.
    #[error("{path}: expected {expected}; found {found}")]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// What would do.
        expected: String,
        /// What is there.
        found: String,
    },
}

fn layout(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::Layout { path: path.to_owned(), expected: expected.into(), found: found.into() }
}

/// The entries of a folder by name, without hidden ones.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let unreadable = |source| DataError::Unreadable { path: folder.to_owned(), source };
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    // Folders list their entries in no particular order; a result must not depend on it.
    paths.sort_unstable();
    Ok(paths)
}

/// What a folder holds, for an error: the first few names.
fn listing(folder: &Path) -> String {
    const SHOWN: usize = 6;
    let Ok(entries) = entries(folder) else { return "no such folder".to_owned() };
    let names: Vec<_> = entries.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy()).collect();
    match names.len() {
        0 => "an empty folder".to_owned(),
        count if count > SHOWN => format!("{}, … ({count} entries)", names[..SHOWN].join(", ")),
        _ => names.join(", "),
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
