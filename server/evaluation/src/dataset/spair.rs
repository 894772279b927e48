//! The layout of SPair-71k (Min et al., *SPair-71k*, 2019): `PairAnnotation/{trn,val,test}/*.json` and
//! `JPEGImages/<category>/*.jpg`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::picture::read;
use super::{DatasetError, Selection, entries, thinned};
use densecl_vision::features::PixelPoint;

/// Two images of objects of one category, with corresponding keypoints.
#[derive(Clone, Debug, PartialEq)]
pub struct KeypointPair {
    /// Name of the annotation.
    pub name: String,
    /// Category of both objects.
    pub category: String,
    /// File of the source image.
    pub source: PathBuf,
    /// File of the target image.
    pub target: PathBuf,
    /// Corresponding keypoints in the source and in the target, in pixels.
    pub keypoints: Vec<(PixelPoint, PixelPoint)>,
    /// Longer side of the object's bounding box in the target, in pixels.
    pub target_box_px: f64,
}

/// The fields of an annotation that are used.
#[derive(Deserialize)]
struct Annotation {
    src_imname: String,
    trg_imname: String,
    trg_bndbox: [f64; 4],
    category: String,
    src_kps: Vec<[f64; 2]>,
    trg_kps: Vec<[f64; 2]>,
}

/// Reads the pairs of a split, and checks that their images exist.
pub(super) fn read_pairs(folder: &Path, selection: &Selection) -> Result<Vec<KeypointPair>, DatasetError> {
    let annotations = folder.join("PairAnnotation").join(selection.split.to_string());
    let pictures = folder.join("JPEGImages");
    for (path, role) in [(&annotations, "the annotations of this split"), (&pictures, "the pictures")] {
        if !path.is_dir() {
            return Err(DatasetError::Missing { path: path.clone(), role: role.to_owned() });
        }
    }
    let files = entries(&annotations)?.into_iter().filter(|path| path.extension().is_some_and(|e| e == "json"));
    let files = thinned(files.collect(), selection.limit);
    if files.is_empty() {
        let role = "the annotations of this split are files *.json".to_owned();
        return Err(DatasetError::Missing { path: annotations.join("*.json"), role });
    }
    files.iter().map(|file| read_pair(&pictures, file)).collect()
}

fn read_pair(pictures: &Path, file: &Path) -> Result<KeypointPair, DatasetError> {
    let annotation: Annotation = serde_json::from_slice(&read(file)?)
        .map_err(|source| DatasetError::Annotation { path: file.to_owned(), source })?;
    let contradiction = |reason: String| DatasetError::Contradiction { path: file.to_owned(), reason };
    let (sources, targets) = (annotation.src_kps.len(), annotation.trg_kps.len());
    if sources != targets || sources == 0 {
        return Err(contradiction(format!("{sources} keypoints in the source and {targets} in the target")));
    }
    let [left, top, right, bottom] = annotation.trg_bndbox;
    let target_box_px = (right - left).max(bottom - top);
    if target_box_px.is_nan() || target_box_px <= 0.0 {
        return Err(contradiction("the target's bounding box has no extent".to_owned()));
    }
    let picture = |name: &str| {
        let path = pictures.join(&annotation.category).join(name);
        let role = format!("a picture that {} names", file.display());
        if path.is_file() { Ok(path) } else { Err(DatasetError::Missing { path, role }) }
    };
    let keypoints = annotation.src_kps.iter().zip(&annotation.trg_kps);
    Ok(KeypointPair {
        name: file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default(),
        source: picture(&annotation.src_imname)?,
        target: picture(&annotation.trg_imname)?,
        keypoints: keypoints.map(|(&source, &target)| (source.into(), target.into())).collect(),
        target_box_px,
        category: annotation.category,
    })
}
