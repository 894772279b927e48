//! Labelled images in the folders that data sets come as.
//!
//! Folders are checked completely before anything is trained: an error says what was expected and what was found.

mod cityscapes;
mod labelled_folder;
mod picture;
mod segmentation_files;
mod segmentation_set;
mod voc;

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::data::PictureError;
use crate::data::list::text;
use crate::data::walk::{WalkError, visible_entries};

pub use labelled_folder::{LabelledFiles, LabelledFolder};
pub use picture::Picture;
pub use segmentation_files::Splits;
pub use segmentation_set::{DataSplit, LabelledPicture, SegmentationSet};

/// A folder or file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file or folder cannot be read.
    #[error("cannot read {path}")]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file cannot be decoded as an image.
    #[error("cannot decode the image {path}")]
    Image {
        /// The file.
        path: PathBuf,
        /// The error.
        source: PictureError,
    },
    /// A file is not a valid label map.
    #[error("{path} is no label map: {reason}")]
    LabelMap {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// A folder does not have the expected layout.
    #[error("{path}: expected {expected}; found {found}")]
    Layout {
        /// The file or folder.
        path: PathBuf,
        /// Description of the expected layout.
        expected: String,
        /// Description of what is there.
        found: String,
    },
}

fn layout(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::Layout { path: path.to_owned(), expected: expected.into(), found: found.into() }
}

impl From<WalkError> for DataError {
    fn from(WalkError { path, source }: WalkError) -> Self {
        Self::Unreadable { path, source }
    }
}

/// The lines of a text file with something in them, whatever its encoding.
fn lines(path: &Path) -> Result<Vec<String>, DataError> {
    let bytes = fs::read(path).map_err(|source| DataError::Unreadable { path: path.to_owned(), source })?;
    let lines = text::lines(&bytes).map_err(|error| layout(path, "a text file", error.to_string()))?;
    Ok(lines.into_iter().map(|line| line.text).collect())
}

/// The first few names in a folder, for an error.
fn listing(folder: &Path) -> String {
    const SHOWN: usize = 6;
    let Ok(entries) = visible_entries(folder) else { return "no such folder".to_owned() };
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
