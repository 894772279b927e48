//! Data sets with exact ground truth.
//!
//! The layout of a folder is recognized by its contents. Everything that can be checked without decoding images is checked
//! when a data set is opened, and errors name the file.

mod error;
mod hpatches;
mod pairs_title;
mod picture;
mod scenes;
mod spair;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use densecl_vision::image::is_ignored_name;
use serde::Serialize;

pub use self::error::DatasetError;
pub use self::hpatches::{Sequence, SequencePicture};
pub use self::picture::{Picture, read_picture};
pub use self::scenes::{GroundTruth, Scene, SceneFrame};
pub use self::spair::KeypointPair;

/// A data set of images with known correspondences.
#[derive(Clone, Debug)]
pub enum Dataset {
    /// Sequences of one plane, with homographies.
    HPatches(Vec<Sequence>),
    /// Sequences of moving objects, with dense correspondences and masks.
    Scenes(Vec<Scene>),
    /// Pairs of one category, with keypoints.
    Spair(Vec<KeypointPair>),
}

/// Layout of a data set's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DatasetLayout {
    /// The layout of `HPatches`, which `synth --kind pairs` writes.
    HPatches,
    /// The layout of `synth --kind scenes`.
    Scenes,
    /// The layout of SPair-71k.
    Spair,
}

/// The part of a data set to evaluate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Split of SPair-71k.
    pub split: Split,
    /// Largest number of sequences, or of pairs of SPair-71k, spread evenly over the whole; all if not given.
    pub limit: Option<usize>,
}

/// A split of SPair-71k, with the name of its folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// `trn`.
    Train,
    /// `val`.
    Validation,
    /// `test`, the split that papers report.
    #[default]
    Test,
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Train => "trn",
            Self::Validation => "val",
            Self::Test => "test",
        })
    }
}

impl FromStr for Split {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Train, Self::Validation, Self::Test];
        all.into_iter().find(|split| split.to_string() == name).ok_or_else(|| "must be trn, val or test".to_owned())
    }
}

impl Dataset {
    /// Opens the data set in `folder` without reading images.
    ///
    /// # Errors
    /// [`DatasetError`] for the first file or folder that is missing or wrong.
    pub fn open(folder: &Path, selection: &Selection) -> Result<Self, DatasetError> {
        let names = subfolders(folder)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let limit = selection.limit;
        if names.iter().any(|name| hpatches::is_sequence(name)) {
            let sequences = names.into_iter().filter(|name| hpatches::is_sequence(name)).collect();
            return read_all(folder, thinned(sequences, limit), hpatches::read_sequence).map(Self::HPatches);
        }
        if has("PairAnnotation") {
            return spair::read_pairs(folder, selection).map(Self::Spair);
        }
        if names.iter().any(|name| folder.join(name).join("frames").is_dir()) {
            return read_all(folder, thinned(names, limit), scenes::read_scene).map(Self::Scenes);
        }
        Err(DatasetError::Unrecognized { folder: folder.to_owned() })
    }

    /// Layout of the folder.
    pub fn layout(&self) -> DatasetLayout {
        match self {
            Self::HPatches(_) => DatasetLayout::HPatches,
            Self::Scenes(_) => DatasetLayout::Scenes,
            Self::Spair(_) => DatasetLayout::Spair,
        }
    }

    /// Name for people: what the data are, which the layout alone does not say.
    pub fn title(&self) -> &'static str {
        match self {
            Self::HPatches(sequences) => pairs_title::title(sequences),
            Self::Scenes(_) => "scenes",
            Self::Spair(_) => "SPair-71k",
        }
    }

    /// Number of pairs of images.
    pub fn pairs(&self) -> usize {
        match self {
            Self::HPatches(sequences) => sequences.iter().map(|sequence| sequence.others.len()).sum(),
            Self::Scenes(scenes) => scenes.iter().map(|scene| scene.later.len()).sum(),
            Self::Spair(pairs) => pairs.len(),
        }
    }

    /// Number of sequences; of pairs for SPair-71k, which has no sequences.
    pub fn sequences(&self) -> usize {
        match self {
            Self::HPatches(sequences) => sequences.len(),
            Self::Scenes(scenes) => scenes.len(),
            Self::Spair(pairs) => pairs.len(),
        }
    }
}

/// The names of the folders in `folder`, sorted, without hidden ones and those of systems.
fn subfolders(folder: &Path) -> Result<Vec<String>, DatasetError> {
    let names = entries(folder)?.into_iter().filter(|path| path.is_dir());
    Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
}

/// The paths of the entries of `folder`, sorted, without hidden ones and those of systems.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DatasetError> {
    let unreadable = |source| DatasetError::Unreadable { path: folder.to_owned(), source };
    let listed = std::fs::read_dir(folder).map_err(unreadable)?;
    let mut paths = listed.map(|entry| Ok(entry.map_err(unreadable)?.path())).collect::<Result<Vec<_>, _>>()?;
    paths.retain(|path| path.file_name().is_some_and(|name| !is_ignored_name(name)));
    paths.sort();
    Ok(paths)
}

fn read_all<T>(
    folder: &Path,
    names: Vec<String>,
    read: fn(&Path, String) -> Result<T, DatasetError>,
) -> Result<Vec<T>, DatasetError> {
    names.into_iter().map(|name| read(&folder.join(&name), name)).collect()
}

/// At most `limit` of `items`, at even distances.
fn thinned<T>(items: Vec<T>, limit: Option<usize>) -> Vec<T> {
    let count = items.len();
    let kept = limit.unwrap_or(count).min(count);
    // Keeps the last position of each of `kept` equal shares.
    let keep = |position: usize| (position + 1) * kept / count > position * kept / count;
    items.into_iter().enumerate().filter(|(position, _)| keep(*position)).map(|(_, item)| item).collect()
}

#[cfg(test)]
mod tests;
