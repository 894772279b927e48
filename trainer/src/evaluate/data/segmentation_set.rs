//! Images with a class for each pixel, from the folders of PASCAL VOC or Cityscapes.

use std::fs;
use std::path::Path;

use densecl_vision::image::{ImageSize, LabelPicture, probe};
use rayon::prelude::*;

use super::picture::Picture;
use super::segmentation_files::{Labelling, Pair, SegmentationFiles, Splits};
use super::{DataError, cityscapes, layout, listing, voc};
use crate::data::PictureError;
use crate::data::decode::DECODE_LIMITS;
use crate::evaluate::metrics::VOID;

/// A labelled image in memory.
#[derive(Clone, Debug)]
pub struct LabelledPicture {
    /// The image.
    pub picture: Picture,
    /// The class of each of its pixels, or [`VOID`].
    pub labels: Vec<u8>,
}

/// Training and test images with their label maps.
#[derive(Clone, Debug)]
pub struct SegmentationSet {
    /// Names of the classes by their number.
    pub classes: Vec<String>,
    /// `VOC` or `Cityscapes`.
    pub layout: &'static str,
    train: Vec<Pair>,
    val: Vec<Pair>,
}

/// Training or test images of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataSplit {
    /// Training images.
    Train,
    /// Test images.
    Val,
}

impl SegmentationSet {
    /// Recognises the layout of `root` and checks every file: labels have the size of their image, and
    /// only known classes.
    ///
    /// # Errors
    /// If the layout is none of the known ones, a file is missing or broken, or labels do not fit.
    pub fn open(root: &Path, splits: &Splits) -> Result<Self, DataError> {
        let SegmentationFiles { classes, layout: name, train, val } = if let Some(inner) = voc::find(root) {
            voc::open(&inner, splits)?
        } else if root.join("leftImg8bit").is_dir() {
            cityscapes::open(root, splits)?
        } else {
            let expected = "PASCAL VOC's ImageSets/Segmentation, JPEGImages and SegmentationClass (here, or in \
                            VOCdevkit/VOC2012), or Cityscapes' leftImg8bit and gtFine";
            return Err(layout(root, expected, listing(root)));
        };
        let set = Self { classes, layout: name, train, val };
        tracing::info!(layout = set.layout, train = set.train.len(), val = set.val.len(), "looking at every label map");
        set.train.par_iter().chain(&set.val).try_for_each(|pair| set.check(pair))?;
        Ok(set)
    }

    /// Number of images.
    pub fn len(&self, part: DataSplit) -> usize {
        self.pairs(part).len()
    }

    /// The name of an image, without folder and ending.
    pub fn name(&self, part: DataSplit, index: usize) -> String {
        let stem = self.pairs(part)[index].image.file_stem();
        stem.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Reads an image and its labels.
    ///
    /// # Errors
    /// If the files have changed since the set was opened.
    pub fn read(&self, part: DataSplit, index: usize) -> Result<LabelledPicture, DataError> {
        let pair = &self.pairs(part)[index];
        let picture = Picture::read(&pair.image)?;
        let (size, labels) = self.labels(pair)?;
        same_size(pair, picture.size(), size)?;
        Ok(LabelledPicture { picture, labels })
    }

    fn pairs(&self, part: DataSplit) -> &[Pair] {
        match part {
            DataSplit::Train => &self.train,
            DataSplit::Val => &self.val,
        }
    }

    fn check(&self, pair: &Pair) -> Result<(), DataError> {
        let size = upright_size(&pair.image).map_err(|source| DataError::Image { path: pair.image.clone(), source })?;
        same_size(pair, size, self.labels(pair)?.0)
    }

    /// Size and labels of the label map, row by row, with classes for numbers.
    fn labels(&self, pair: &Pair) -> Result<(ImageSize, Vec<u8>), DataError> {
        let path = &pair.labels;
        let wrong = |reason| DataError::LabelMap { path: path.clone(), reason };
        let file = fs::read(path).map_err(|source| DataError::Unreadable { path: path.clone(), source })?;
        let picture = LabelPicture::decode(&file, &DECODE_LIMITS).map_err(|error| wrong(error.to_string()))?;
        let (size, mut labels) = (picture.size(), picture.into_labels());
        if pair.labelling == Labelling::CityscapesIds {
            for label in &mut labels {
                let id = *label;
                *label = cityscapes::class_of_id(id)
                    .ok_or_else(|| wrong(format!("it holds {id}, which is none of Cityscapes' numbers (0 to 33)")))?;
            }
        }
        let classes = self.classes.len();
        match labels.iter().find(|&&label| label != VOID && usize::from(label) >= classes) {
            Some(label) => Err(wrong(format!(
                "it holds {label}, but there are {classes} classes (0 to {}, and {VOID} for pixels that do not count)",
                classes - 1
            ))),
            None => Ok((size, labels)),
        }
    }
}

fn same_size(pair: &Pair, image: ImageSize, labels: ImageSize) -> Result<(), DataError> {
    if image == labels {
        return Ok(());
    }
    let expected = format!("{}x{} pixels as {} has", image.width, image.height, pair.image.display());
    Err(layout(&pair.labels, expected, format!("{}x{}", labels.width, labels.height)))
}

/// Reads the size that the image has when it is upright, without decoding its pixels.
fn upright_size(path: &Path) -> Result<ImageSize, PictureError> {
    Ok(probe(&fs::read(path)?, &DECODE_LIMITS)?.size)
}

#[cfg(test)]
pub(in crate::evaluate) mod tests {
    use super::*;

    /// An image of one grey and a label map, both of this size.
    pub(in crate::evaluate) fn write_pair(image: &Path, labels: &Path, (width, height): (u32, u32), label: u8) {
        for path in [image, labels] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        image::RgbImage::from_pixel(width, height, image::Rgb([90; 3])).save(image).unwrap();
        image::GrayImage::from_pixel(width, height, image::Luma([label])).save(labels).unwrap();
    }

    /// A set in VOC's layout of one training and one test image.
    fn voc(root: &Path, label: u8) {
        for (name, label) in [("a", 0), ("b", label)] {
            let image = root.join(format!("JPEGImages/{name}.jpg"));
            write_pair(&image, &root.join(format!("SegmentationClass/{name}.png")), (6, 4), label);
        }
        fs::create_dir_all(root.join("ImageSets/Segmentation")).unwrap();
        fs::write(root.join("ImageSets/Segmentation/train.txt"), "a\n").unwrap();
        fs::write(root.join("ImageSets/Segmentation/val.txt"), "b\r\n\n").unwrap();
    }

    fn splits(train: &str) -> Splits {
        Splits { train: train.to_owned(), val: "val".to_owned() }
    }

    #[test]
    fn voc_is_found_at_any_of_its_levels() {
        let root = tempfile::tempdir().unwrap();
        voc(&root.path().join("VOCdevkit/VOC2012"), 20);
        for inner in ["", "VOCdevkit", "VOCdevkit/VOC2012"] {
            let set = SegmentationSet::open(&root.path().join(inner), &splits("train")).unwrap();
            assert_eq!((set.classes.len(), set.classes[20].as_str()), (21, "tvmonitor"));
            assert_eq!((set.len(DataSplit::Train), set.len(DataSplit::Val)), (1, 1));
            let read = set.read(DataSplit::Val, 0).unwrap();
            assert_eq!((read.labels, read.picture.size()), (vec![20; 24], ImageSize { width: 6, height: 4 }));
            assert_eq!(set.name(DataSplit::Val, 0), "b");
        }
    }

    #[test]
    fn lists_may_have_marks_and_other_encodings() {
        let root = tempfile::tempdir().unwrap();
        voc(root.path(), 1);
        let list = root.path().join("ImageSets/Segmentation/train.txt");
        let utf_16: Vec<u8> = "\u{feff}a\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for text in [b"\xef\xbb\xbfa\r\n".to_vec(), utf_16, b"a\r".to_vec()] {
            fs::write(&list, text).unwrap();
            assert_eq!(SegmentationSet::open(root.path(), &splits("train")).unwrap().name(DataSplit::Train, 0), "a");
        }
        fs::write(root.path().join("classes.txt"), b"background\nr\xe9sum\xe9\n").unwrap();
        assert_eq!(SegmentationSet::open(root.path(), &splits("train")).unwrap().classes[1], "résumé");
    }

    #[test]
    fn classes_come_from_classes_txt_where_there_is_one() {
        let root = tempfile::tempdir().unwrap();
        voc(root.path(), 2);
        fs::write(root.path().join("classes.txt"), "background\nring\n").unwrap();
        let message = SegmentationSet::open(root.path(), &splits("train")).unwrap_err().to_string();
        assert!(message.contains("it holds 2, but there are 2 classes"), "{message}");
        fs::write(root.path().join("classes.txt"), "background\nring\nstar\n").unwrap();
        assert_eq!(SegmentationSet::open(root.path(), &splits("train")).unwrap().classes.len(), 3);
    }

    #[test]
    fn trainaug_takes_the_masks_of_its_own_folder() {
        let root = tempfile::tempdir().unwrap();
        voc(root.path(), 1);
        fs::write(root.path().join("ImageSets/Segmentation/trainaug.txt"), "a\n").unwrap();
        let labels = |set: SegmentationSet| set.read(DataSplit::Train, 0).unwrap().labels[0];
        assert_eq!(labels(SegmentationSet::open(root.path(), &splits("trainaug")).unwrap()), 0);
        let (image, mask) = (root.path().join("JPEGImages/a.jpg"), root.path().join("SegmentationClassAug/a.png"));
        write_pair(&image, &mask, (6, 4), 7);
        assert_eq!(labels(SegmentationSet::open(root.path(), &splits("trainaug")).unwrap()), 7);
        assert_eq!(labels(SegmentationSet::open(root.path(), &splits("train")).unwrap()), 0);
    }

    #[test]
    fn errors_name_what_does_not_fit() {
        let message = |spoil: &dyn Fn(&Path), train: &str| {
            let root = tempfile::tempdir().unwrap();
            voc(root.path(), 1);
            spoil(root.path());
            SegmentationSet::open(root.path(), &splits(train)).unwrap_err().to_string()
        };
        let missing = message(&|_| (), "trainaug");
        assert!(missing.contains("trainaug.txt") && missing.contains("found train.txt, val.txt"), "{missing}");
        let other_size = |root: &Path| {
            write_pair(&root.join("spare.png"), &root.join("SegmentationClass/b.png"), (4, 6), 1);
        };
        let other_size = message(&other_size, "train");
        assert!(other_size.contains("expected 6x4") && other_size.contains("found 4x6"), "{other_size}");
        let no_mask = message(&|root| fs::remove_file(root.join("SegmentationClass/a.png")).unwrap(), "train");
        assert!(no_mask.contains("a.png"), "{no_mask}");
        let no_image = message(&|root| fs::remove_file(root.join("JPEGImages/a.jpg")).unwrap(), "train");
        assert!(no_image.contains("a.jpg"), "{no_image}");
        let colored = |root: &Path| {
            image::RgbImage::new(6, 4).save(root.join("SegmentationClass/b.png")).unwrap();
        };
        let colored = message(&colored, "train");
        assert!(colored.contains("b.png is no label map") && colored.contains("RGB colours"), "{colored}");
        let cut_off = |root: &Path| {
            let mask = root.join("SegmentationClass/b.png");
            fs::write(&mask, &fs::read(&mask).unwrap()[..40]).unwrap();
        };
        assert!(message(&cut_off, "train").contains("damaged or cut off"));
        let empty = message(&|root| fs::write(root.join("ImageSets/Segmentation/val.txt"), "\n").unwrap(), "train");
        assert!(empty.contains("val.txt: expected one name a line"), "{empty}");
        let unknown = tempfile::tempdir().unwrap();
        fs::create_dir(unknown.path().join("photos")).unwrap();
        let unknown = SegmentationSet::open(unknown.path(), &splits("train")).unwrap_err().to_string();
        assert!(unknown.contains("Cityscapes") && unknown.contains("found photos"), "{unknown}");
    }
}
