//! The layout that `synth --kind scenes` writes: each sequence has `frames/TTTT.png` and `masks/TTTT.png` from `0000` on,
//! and `positions/TTTT.npy` and `visible/TTTT.npy` from `0001` on.

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array3};
use ndarray_npy::ReadNpyExt;

use super::picture::{LIMITS, read};
use super::{DatasetError, entries};
use densecl_vision::features::PixelPoint;
use densecl_vision::image::{ImageSize, LabelPicture};

/// A sequence of frames with moving objects.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Name of the folder.
    pub name: String,
    /// The frame that is matched with all others.
    pub first: SceneFrame,
    /// The later frames, in order, with the ground truth of the first frame's points in each.
    pub later: Vec<(SceneFrame, GroundTruthFiles)>,
}

/// A frame and its mask.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneFrame {
    /// The image's file.
    pub picture: PathBuf,
    mask: PathBuf,
}

/// The files with the ground truth of the first frame's points in another frame.
#[derive(Clone, Debug, PartialEq)]
pub struct GroundTruthFiles {
    positions: PathBuf,
    visible: PathBuf,
}

/// Position and visibility of every pixel of the first frame in another frame.
#[derive(Clone, Debug)]
pub struct GroundTruth {
    positions: Array3<f32>, // [height, width, 2]
    visible: Array2<u8>,    // [height, width]
}

impl SceneFrame {
    /// Reads the object's label at every pixel, row by row; 0 where there is no object.
    ///
    /// # Errors
    /// [`DatasetError`] if the file is not a mask, or not of size `size`.
    pub fn read_mask(&self, size: ImageSize) -> Result<Vec<u8>, DatasetError> {
        let mask = LabelPicture::decode(&read(&self.mask)?, &LIMITS)
            .map_err(|source| DatasetError::Mask { path: self.mask.clone(), source })?;
        if mask.size() != size {
            return Err(wrong_size(&self.mask, &[mask.size().height as usize, mask.size().width as usize], size));
        }
        Ok(mask.labels().to_vec())
    }
}

impl GroundTruthFiles {
    /// Reads the files, for frames of size `size`.
    ///
    /// # Errors
    /// [`DatasetError`] if they are not arrays, or not of the frames' size.
    pub fn read(&self, size: ImageSize) -> Result<GroundTruth, DatasetError> {
        let array = |path: &Path, source| DatasetError::Array { path: path.to_owned(), source };
        let (height, width) = (size.height as usize, size.width as usize);
        let positions = Array3::<f32>::read_npy(read(&self.positions)?.as_slice())
            .map_err(|source| array(&self.positions, source))?;
        if positions.shape() != [height, width, 2] {
            return Err(wrong_size(&self.positions, positions.shape(), size));
        }
        let visible =
            Array2::<u8>::read_npy(read(&self.visible)?.as_slice()).map_err(|source| array(&self.visible, source))?;
        if visible.shape() != [height, width] {
            return Err(wrong_size(&self.visible, visible.shape(), size));
        }
        Ok(GroundTruth { positions, visible })
    }
}

impl GroundTruth {
    /// The position of pixel `(x, y)` of the first frame; `None` if it is hidden in the other frame.
    pub fn visible_at(&self, x: usize, y: usize) -> Option<PixelPoint> {
        let seen = self.visible.get([y, x]).is_some_and(|&visible| visible != 0);
        let at = |axis: usize| self.positions.get([y, x, axis]).copied().map(f64::from);
        seen.then(|| Some(PixelPoint { x: at(0)?, y: at(1)? })).flatten()
    }
}

fn wrong_size(path: &Path, found: &[usize], expected: ImageSize) -> DatasetError {
    let lengths: Vec<String> = found.iter().map(usize::to_string).collect();
    DatasetError::Size {
        path: path.to_owned(),
        found: lengths.join(" x "),
        expected: format!("{} x {} (height x width)", expected.height, expected.width),
    }
}

/// Lists the files of a scene, and checks that they exist.
pub(super) fn read_scene(folder: &Path, name: String) -> Result<Scene, DatasetError> {
    let frames_folder = folder.join("frames");
    let mut frames = Vec::new();
    for picture in entries(&frames_folder)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "png")) {
        let stem = picture.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let mask = present(folder.join("masks").join(format!("{stem}.png")), "the mask of a frame")?;
        frames.push((SceneFrame { picture, mask }, stem));
    }
    if frames.len() < 2 {
        let role = "a scene has at least two frames".to_owned();
        return Err(DatasetError::Missing { path: frames_folder.join("0001.png"), role });
    }
    let mut frames = frames.into_iter();
    let missing = || DatasetError::Missing { path: frames_folder.join("0000.png"), role: "the first frame".to_owned() };
    let (first, _) = frames.next().ok_or_else(missing)?;
    let truth = |stem: &str| {
        let file = |kind: &str| folder.join(kind).join(format!("{stem}.npy"));
        let positions = present(file("positions"), "where the points of the first frame are")?;
        Ok(GroundTruthFiles {
            positions,
            visible: present(file("visible"), "which points of the first frame are seen")?,
        })
    };
    let later = frames.map(|(frame, stem)| Ok((frame, truth(&stem)?))).collect::<Result<_, DatasetError>>()?;
    Ok(Scene { name, first, later })
}

fn present(path: PathBuf, role: &str) -> Result<PathBuf, DatasetError> {
    if path.is_file() { Ok(path) } else { Err(DatasetError::Missing { path, role: role.to_owned() }) }
}
