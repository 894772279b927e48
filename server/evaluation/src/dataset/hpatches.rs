//! The layout of `HPatches` (Balntas et al., *`HPatches`*, CVPR 2017): folders `v_*` (change of viewpoint) and `i_*` (change
//! of illumination) hold images `1`, `2`, … (`.ppm`, `.png`, `.jpg`) and, for each image but the first, the homography from
//! image 1 as text, nine numbers: `H_1_2`, `H_1_3`, ….

use std::fs;
use std::path::{Path, PathBuf};

use super::DatasetError;
use densecl_vision::homography::Homography;

const EXTENSIONS: [&str; 4] = ["ppm", "png", "jpg", "jpeg"];

/// Images of one plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// Name of the folder.
    pub name: String,
    /// The image that is matched with all others.
    pub first: PathBuf,
    /// The other images, in order.
    pub others: Vec<SequencePicture>,
}

/// An image of a sequence, and the homography to it from the first image.
#[derive(Clone, Debug, PartialEq)]
pub struct SequencePicture {
    /// The image's file.
    pub picture: PathBuf,
    /// Maps pixels of the first image to pixels of this one.
    pub homography: Homography,
}

impl Sequence {
    /// Tells whether the viewpoint changes (`v_*`), and not the illumination (`i_*`).
    pub fn changes_viewpoint(&self) -> bool {
        self.name.starts_with("v_")
    }
}

/// Tells whether a folder of this name is a sequence.
pub(super) fn is_sequence(name: &str) -> bool {
    name.starts_with("v_") || name.starts_with("i_")
}

/// Reads all homographies of a sequence, and checks that its images exist.
pub(super) fn read_sequence(folder: &Path, name: String) -> Result<Sequence, DatasetError> {
    let missing = |number| DatasetError::MissingPicture { folder: folder.to_owned(), number };
    let first = find_picture(folder, 1).ok_or_else(|| missing(1))?;
    let mut others = Vec::new();
    for number in 2.. {
        let path = folder.join(format!("H_1_{number}"));
        match (find_picture(folder, number), path.is_file()) {
            (Some(picture), true) => others.push(SequencePicture { picture, homography: read_homography(&path)? }),
            (Some(_), false) => {
                let role = format!("the homography from picture 1 to picture {number}");
                return Err(DatasetError::Missing { path, role });
            }
            // A sequence needs at least two images.
            (None, false) if number > 2 => break,
            (None, _) => return Err(missing(number)),
        }
    }
    Ok(Sequence { name, first, others })
}

fn find_picture(folder: &Path, number: usize) -> Option<PathBuf> {
    EXTENSIONS.iter().map(|extension| folder.join(format!("{number}.{extension}"))).find(|path| path.is_file())
}

fn read_homography(path: &Path) -> Result<Homography, DatasetError> {
    let text = fs::read_to_string(path).map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })?;
    text.parse().map_err(|source| DatasetError::Homography { path: path.to_owned(), source })
}
