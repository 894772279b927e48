//! Errors of data sets.

use std::io;
use std::path::PathBuf;

use densecl_vision::homography::HomographyError;
use densecl_vision::image::{DecodeError, LabelError};

/// The reason why a data set could not be read. Messages contain paths, because they are printed on the command line only.
#[derive(Debug, thiserror::Error)]
pub enum DatasetError {
    /// A file or folder could not be read.
    #[error("{} could not be read", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The cause.
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
    /// A sequence has no image with this number.
    #[error("{} has no picture {number}.ppm, {number}.png or {number}.jpg", folder.display())]
    MissingPicture {
        /// The sequence's folder.
        folder: PathBuf,
        /// The image's number.
        number: usize,
    },
    /// A required file or folder is missing.
    #[error("{} is missing: {role}", path.display())]
    Missing {
        /// The missing file or folder.
        path: PathBuf,
        /// Its purpose.
        role: String,
    },
    /// The file of a homography is invalid.
    #[error("{} is not a homography", path.display())]
    Homography {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: HomographyError,
    },
    /// An image could not be decoded.
    #[error("{} is not a picture that can be read", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: DecodeError,
    },
    /// A PPM image could not be decoded.
    #[error("{} is not a PPM picture that can be read", path.display())]
    Ppm {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ::image::ImageError,
    },
    /// A mask could not be decoded.
    #[error("{} is not a mask that can be read", path.display())]
    Mask {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: LabelError,
    },
    /// An array could not be read.
    #[error("{} is not the NumPy array it should be", path.display())]
    Array {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: ndarray_npy::ReadNpyError,
    },
    /// The size of an array or mask is not that of its image.
    #[error("{} is of {found}, and its picture of {expected}", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// The size of the array or mask.
        found: String,
        /// The size of the image.
        expected: String,
    },
    /// An annotation is not valid JSON of SPair-71k.
    #[error("{} is not an annotation of SPair-71k", path.display())]
    Annotation {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
    /// An annotation contradicts itself or its images.
    #[error("{}: {reason}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        reason: String,
    },
}
