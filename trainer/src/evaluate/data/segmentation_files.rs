//! The files of a segmentation data set, as its layout names them.

use std::path::PathBuf;

/// Names of the lists of training and test images in the data set.
#[derive(Clone, Debug)]
pub struct Splits {
    /// Trained on: `train`, or VOC's `trainaug`.
    pub train: String,
    /// Tested on: `val`.
    pub val: String,
}

/// Meaning of the numbers in a label map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Labelling {
    /// Classes from 0 on, and 255 for pixels that do not count.
    Classes,
    /// Cityscapes' own numbers, of which 19 are classes that count.
    CityscapesIds,
}

/// An image and its label map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) image: PathBuf,
    pub(super) labels: PathBuf,
    pub(super) labelling: Labelling,
}

/// The files of a data set, not yet checked.
#[derive(Clone, Debug)]
pub(super) struct SegmentationFiles {
    /// Names of the classes by their number.
    pub(super) classes: Vec<String>,
    /// `VOC` or `Cityscapes`.
    pub(super) layout: &'static str,
    pub(super) train: Vec<Pair>,
    pub(super) val: Vec<Pair>,
}
