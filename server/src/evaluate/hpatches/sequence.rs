//! Folders in `HPatches`' format.

use std::path::{Path, PathBuf};
use std::{fs, io};

use ::image::ImageFormat;

use crate::evaluate::{Homography, HomographyError};
use crate::image::{DecodeError, DecodeLimits, RgbImage, decode};

const EXTENSIONS: [&str; 4] = ["ppm", "png", "jpg", "jpeg"];
/// The files are one's own: the limit is only there to notice a wrong one before the memory is gone.
const MAX_PIXELS: u64 = 200_000_000;

/// Pictures of one plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Name of the folder.
    pub name: String,
    /// The picture that all the others are matched with.
    pub first: PathBuf,
    /// The others, in order.
    pub others: Vec<OtherPicture>,
}

/// A picture, and where the points of the first picture lie in it.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherPicture {
    /// The file.
    pub picture: PathBuf,
    /// From the first picture to this one.
    pub homography: Homography,
}

impl Sequence {
    /// Whether the camera moved (`v_*`), rather than the light (`i_*`).
    pub fn changes_viewpoint(&self) -> bool {
        self.name.starts_with("v_")
    }
}

/// Why a folder could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// A file or folder could not be read.
    #[error("{} could not be read", path.display())]
    Unreadable {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There are no sequences.
    #[error("{} holds no folders v_* or i_* with pictures: is it a folder in HPatches' format?", folder.display())]
    NoSequences {
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
    /// A picture has no homography.
    #[error("{} is missing, which belongs to picture {number}", path.display())]
    MissingHomography {
        /// The file that should be there.
        path: PathBuf,
        /// The picture's number.
        number: usize,
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
}

/// The sequences in `folder`, by name. Every homography is read and every picture is known to be there.
///
/// # Errors
/// [`SequenceError`], naming the first thing that is missing or wrong.
pub fn sequences(folder: &Path) -> Result<Vec<Sequence>, SequenceError> {
    let unreadable = |source| SequenceError::Unreadable { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() && (name.starts_with("v_") || name.starts_with("i_")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    if names.is_empty() {
        return Err(SequenceError::NoSequences { folder: folder.to_owned() });
    }
    names.into_iter().map(|name| read_sequence(&folder.join(&name), name)).collect()
}

fn read_sequence(folder: &Path, name: String) -> Result<Sequence, SequenceError> {
    let missing = |number| SequenceError::MissingPicture { folder: folder.to_owned(), number };
    let first = find_picture(folder, 1).ok_or_else(|| missing(1))?;
    let mut others = Vec::new();
    for number in 2.. {
        let path = folder.join(format!("H_1_{number}"));
        match (find_picture(folder, number), path.is_file()) {
            (Some(picture), true) => others.push(OtherPicture { picture, homography: read_homography(&path)? }),
            (Some(_), false) => return Err(SequenceError::MissingHomography { path, number }),
            // One picture alone is no sequence: the second is missing.
            (None, false) if number > 2 => break,
            (None, _) => return Err(missing(number)),
        }
    }
    Ok(Sequence { name, first, others })
}

fn find_picture(folder: &Path, number: usize) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|extension| folder.join(format!("{number}.{extension}"))).find(|path| path.is_file())
}

fn read_homography(path: &Path) -> Result<Homography, SequenceError> {
    let text =
        fs::read_to_string(path).map_err(|source| SequenceError::Unreadable { path: path.to_owned(), source })?;
    text.parse().map_err(|source| SequenceError::Homography { path: path.to_owned(), source })
}

/// Reads a picture; PPM too, which the server does not take.
pub(super) fn read_picture(path: &Path) -> Result<RgbImage, SequenceError> {
    let bytes = fs::read(path).map_err(|source| SequenceError::Unreadable { path: path.to_owned(), source })?;
    if bytes.first() == Some(&b'P') {
        let picture = ::image::load_from_memory_with_format(&bytes, ImageFormat::Pnm)
            .map_err(|source| SequenceError::Ppm { path: path.to_owned(), source })?;
        return Ok(picture.into_rgb8());
    }
    let limits = DecodeLimits { max_pixels: MAX_PIXELS };
    decode(&bytes, &limits).map_err(|source| SequenceError::Picture { path: path.to_owned(), source })
}
