//! The layout of PASCAL VOC: `ImageSets/Segmentation/SPLIT.txt` names images, one a line, which are
//! `JPEGImages/NAME.jpg`, labelled by `SegmentationClass/NAME.png`.
//!
//! `classes.txt`, which is not VOC's, names other classes than VOC's, one a line from 0 on.

use std::path::{Path, PathBuf};

use super::segmentation_files::{Labelling, Pair, SegmentationFiles, Splits};
use super::{DataError, layout, lines, listing};

const LISTS: &str = "ImageSets/Segmentation";

const CLASSES: [&str; 21] = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
];

/// The folder that holds the lists: `root` or one that the archive makes below it.
pub(super) fn find(root: &Path) -> Option<PathBuf> {
    let levels = ["", "VOC2012", "VOCdevkit/VOC2012"].map(|inner| root.join(inner));
    levels.into_iter().find(|folder| folder.join(LISTS).is_dir())
}

pub(super) fn open(root: &Path, splits: &Splits) -> Result<SegmentationFiles, DataError> {
    Ok(SegmentationFiles {
        classes: classes(root)?,
        layout: "VOC",
        train: pairs(root, &splits.train)?,
        val: pairs(root, &splits.val)?,
    })
}

fn classes(root: &Path) -> Result<Vec<String>, DataError> {
    let path = root.join("classes.txt");
    if !path.exists() {
        return Ok(CLASSES.map(str::to_owned).to_vec());
    }
    let names = lines(&path)?;
    if !(2..=255).contains(&names.len()) {
        return Err(layout(&path, "2 to 255 names, one a line", format!("{} names", names.len())));
    }
    Ok(names)
}

fn pairs(root: &Path, split: &str) -> Result<Vec<Pair>, DataError> {
    let list = root.join(LISTS).join(format!("{split}.txt"));
    if !list.is_file() {
        return Err(layout(&list, "the list of the split", listing(&root.join(LISTS))));
    }
    let names = lines(&list)?;
    if names.is_empty() {
        return Err(layout(&list, "one name a line", "none"));
    }
    // The 10,582 training images that Hariharan et al. annotated come with masks in a folder of
    // their own, which holds VOC's again.
    let augmented = root.join("SegmentationClassAug");
    let masks = if split == "trainaug" && augmented.is_dir() { augmented } else { root.join("SegmentationClass") };
    let pair = |name: &String| Pair {
        image: root.join(format!("JPEGImages/{name}.jpg")),
        labels: masks.join(format!("{name}.png")),
        labelling: Labelling::Classes,
    };
    Ok(names.iter().map(pair).collect())
}
