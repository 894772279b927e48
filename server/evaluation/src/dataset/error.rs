//! What can be wrong with a data set.

use std::io;
use std::path::PathBuf;

use densecl_vision::homography::HomographyError;
use densecl_vision::image::{DecodeError, LabelError};

/// Why a data set could not be read. Paths are the user's own: these errors are for the command line.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder could not be read.
    #[error("{} could not be read", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The folder has none of the known layouts.
    #[error(
        "{} has none of the layouts that are known here: folders v_* or i_* (HPatches), PairAnnotation and JPEGImages \
         (SPair-71k), or folders with frames, masks, positions and visible (scenes)", folder.display()
    )]
    Unrecognized {
        /// The folder.
        folder: PathBuf,
    },
    /// A sequence lacks a picture.
    #[error("{} has no picture {number}.ppm, {number}.png or {number}.jpg", folder.display())]
    MissingPicture {
        /// The sequence's folder.
        folder: PathBuf,
        /// The picture's number.
        number: usize,
    },
    /// Something else that must be there is not.
    #[error("{} is missing: {role}", path.display())]
    Missing {
        /// The file or folder that should be there.
        path: PathBuf,
        /// What it is for.
        role: String,
    },
    /// A homography's file holds something else.
    #[error("{} is not a homography", path.display())]
    Homography {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: HomographyError,
    },
    /// A picture could not be decoded.
    #[error("{} is not a picture that can be read", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// A PPM picture could not be decoded.
    #[error("{} is not a PPM picture that can be read", path.display())]
    Ppm {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ::image::ImageError,
    },
    /// A mask could not be decoded.
    #[error("{} is not a mask that can be read", path.display())]
    Mask {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LabelError,
    },
    /// An array could not be read.
    #[error("{} is not the NumPy array it should be", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ndarray_npy::ReadNpyError,
    },
    /// Something has another size than its picture.
    #[error("{} is of {found}, and its picture of {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The size it has.
        found: String,
        /// The size it should have.
        expected: String,
    },
    /// An annotation is not the JSON document it should be.
    #[error("{} is not an annotation of SPair-71k", path.display())]
    Annotation {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// An annotation contradicts itself or its pictures.
    #[error("{}: {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}
