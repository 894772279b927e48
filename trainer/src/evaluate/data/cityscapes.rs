//! The layout of Cityscapes: `leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png`, labelled by
//! `gtFine/SPLIT/CITY/NAME_gtFine_labelTrainIds.png` where that has been made, or else by
//! `NAME_gtFine_labelIds.png`.

use std::path::Path;

use super::segmentation_files::{Labelling, Pair, SegmentationFiles, Splits};
use super::{DataError, layout, listing, name_of};
use crate::data::walk::visible_entries;
use crate::evaluate::metrics::VOID;

/// The classes that are evaluated, in the order of their train ids, with their ids in the label maps.
const CLASSES: [(u8, &str); 19] = [
    (7, "road"),
    (8, "sidewalk"),
    (11, "building"),
    (12, "wall"),
    (13, "fence"),
    (17, "pole"),
    (19, "traffic light"),
    (20, "traffic sign"),
    (21, "vegetation"),
    (22, "terrain"),
    (23, "sky"),
    (24, "person"),
    (25, "rider"),
    (26, "car"),
    (27, "truck"),
    (28, "bus"),
    (31, "train"),
    (32, "motorcycle"),
    (33, "bicycle"),
];

/// The highest id; −1, the licence plate, is 255 in a file of bytes.
const MAX_ID: u8 = 33;

/// The train id of an id in a label map, [`VOID`] if it does not count; `None` if there is no such id.
pub(super) fn class_of_id(id: u8) -> Option<u8> {
    let class = CLASSES.iter().position(|(of, _)| *of == id);
    (id <= MAX_ID || id == VOID).then_some(class.map_or(VOID, |class| class as u8))
}

pub(super) fn open(root: &Path, splits: &Splits) -> Result<SegmentationFiles, DataError> {
    Ok(SegmentationFiles {
        classes: CLASSES.map(|(_, name)| name.to_owned()).to_vec(),
        layout: "Cityscapes",
        train: pairs(root, &splits.train)?,
        val: pairs(root, &splits.val)?,
    })
}

fn pairs(root: &Path, split: &str) -> Result<Vec<Pair>, DataError> {
    const IMAGE: &str = "_leftImg8bit.png";
    let images = root.join("leftImg8bit").join(split);
    if !images.is_dir() {
        return Err(layout(&images, "the split's folder of cities", listing(&root.join("leftImg8bit"))));
    }
    let mut pairs = Vec::new();
    for city in visible_entries(&images)?.iter().filter(|path| path.is_dir()) {
        let annotated = root.join("gtFine").join(split).join(name_of(city));
        for image in visible_entries(city)? {
            let Some(name) = name_of(&image).strip_suffix(IMAGE).map(str::to_owned) else { continue };
            let train_ids = annotated.join(format!("{name}_gtFine_labelTrainIds.png"));
            let ids = annotated.join(format!("{name}_gtFine_labelIds.png"));
            pairs.push(if train_ids.is_file() {
                Pair { image, labels: train_ids, labelling: Labelling::Classes }
            } else {
                Pair { image, labels: ids, labelling: Labelling::CityscapesIds }
            });
        }
    }
    if pairs.is_empty() {
        return Err(layout(&images, format!("<city>/*{IMAGE}"), listing(&images)));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::super::segmentation_set::tests::write_pair;
    use super::super::segmentation_set::{DataSplit, SegmentationSet};
    use super::*;

    fn splits() -> Splits {
        Splits { train: "train".to_owned(), val: "val".to_owned() }
    }

    fn write(root: &Path, split: &str, labels: &str, label: u8) {
        let image = root.join(format!("leftImg8bit/{split}/ulm/ulm_0_leftImg8bit.png"));
        write_pair(&image, &root.join(format!("gtFine/{split}/ulm/ulm_0_gtFine_{labels}.png")), (4, 2), label);
    }

    #[test]
    fn ids_become_train_ids_and_train_ids_stay() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train", "labelIds", 33);
        write(root.path(), "val", "labelIds", 6);
        let labels = |part| SegmentationSet::open(root.path(), &splits()).unwrap().read(part, 0).unwrap().labels[0];
        assert_eq!((labels(DataSplit::Train), labels(DataSplit::Val)), (18, VOID));
        write(root.path(), "train", "labelTrainIds", 3);
        assert_eq!(labels(DataSplit::Train), 3);
    }

    #[test]
    fn what_systems_leave_is_neither_city_nor_image() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train", "labelIds", 33);
        write(root.path(), "val", "labelIds", 6);
        for name in ["train/__MACOSX/x_leftImg8bit.png", "train/ulm/._ulm_0_leftImg8bit.png"] {
            let path = root.path().join("leftImg8bit").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, b"").unwrap();
        }
        assert_eq!(SegmentationSet::open(root.path(), &splits()).unwrap().len(DataSplit::Train), 1);
    }

    #[test]
    fn errors_name_what_is_missing_or_unknown() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "train", "labelIds", 34);
        let message = || SegmentationSet::open(root.path(), &splits()).unwrap_err().to_string();
        assert!(message().contains("leftImg8bit/val") && message().contains("found train"), "{}", message());
        write(root.path(), "val", "labelIds", 7);
        assert!(message().contains("it holds 34"), "{}", message());
        write(root.path(), "train", "labelTrainIds", 19);
        assert!(message().contains("it holds 19, but there are 19 classes"), "{}", message());
    }
}
