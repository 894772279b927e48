//! Labelled pictures in the layouts of PASCAL VOC and COCO.
//!
//! Both kinds have `JPEGImages/NAME.jpg` and `classes.txt`, whose line `n`, counted from 0, names
//! label `n`. Pictures of `train` are training pictures; those of `val` are held-out ones, whose
//! texture programs no training picture shows.

use std::path::Path;

use rayon::prelude::*;

use super::annotation::{self, Object};
use super::coco::Instances;
use super::size::Size;
use super::{Summary, SynthError, make_folder, numbered, voc, write_file, write_rgb_jpeg, write_voc_labels};
use crate::{Category, FigurePicture, ProceduralImages, Split};

/// Kind of labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Labels {
    /// `SegmentationClass/` and `SegmentationObject/`, lists in `ImageSets/Segmentation/`.
    Segmentation,
    /// `Annotations/`, lists in `ImageSets/Main/`, and `annotations/instances_SET.json`.
    Detection,
}

/// Number of pictures in each set.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sets {
    pub(super) train: usize,
    pub(super) val: usize,
}

/// A picture that has been written.
struct Entry {
    name: String,
    /// With the run lengths of their masks; empty for segmentation.
    objects: Vec<(Object, Vec<u32>)>,
}

impl Labels {
    fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Segmentation => &["JPEGImages", "SegmentationClass", "SegmentationObject", "ImageSets/Segmentation"],
            Self::Detection => &["JPEGImages", "Annotations", "ImageSets/Main", "annotations"],
        }
    }
}

/// Writes both sets into `folder`.
pub(super) fn write_all(
    source: &ProceduralImages,
    size: Size,
    sets: &Sets,
    labels: Labels,
    folder: &Path,
) -> Result<Summary, SynthError> {
    for name in labels.folders() {
        make_folder(&folder.join(name))?;
    }
    let classes = ["background"].into_iter().chain(Category::ALL.map(Category::name));
    write_file(&folder.join("classes.txt"), lines(classes).as_bytes())?;
    for (set, count, split) in [("train", sets.train, Split::Train), ("val", sets.val, Split::HeldOut)] {
        let source = source.with_split(split);
        let entries: Vec<Entry> = (0..count)
            .into_par_iter()
            .map(|index| {
                let name = format!("{set}_{}", numbered(index, count));
                let drawn = source.render_figures(index as u64, size.frame());
                write_rgb_jpeg(&folder.join(format!("JPEGImages/{name}.jpg")), &drawn.picture.pixels, size)?;
                match labels {
                    Labels::Segmentation => write_label_maps(name, &drawn, size, folder),
                    Labels::Detection => write_annotation(name, &drawn, size, folder),
                }
            })
            .collect::<Result<_, SynthError>>()?;
        write_set(set, size, labels, entries, folder)?;
    }
    Ok(Summary { images: sets.train + sets.val, sequences: 0 })
}

fn write_label_maps(name: String, drawn: &FigurePicture, size: Size, folder: &Path) -> Result<Entry, SynthError> {
    let objects = annotation::objects(drawn, size);
    let classes = annotation::label_map(drawn, size, &objects, |_, object| object.category.number());
    write_voc_labels(&folder.join(format!("SegmentationClass/{name}.png")), &classes, size)?;
    let numbers = annotation::label_map(drawn, size, &objects, |index, _| index as u8 + 1);
    write_voc_labels(&folder.join(format!("SegmentationObject/{name}.png")), &numbers, size)?;
    Ok(Entry { name, objects: Vec::new() })
}

fn write_annotation(name: String, drawn: &FigurePicture, size: Size, folder: &Path) -> Result<Entry, SynthError> {
    let objects = annotation::objects(drawn, size);
    let text = voc::annotation(&format!("{name}.jpg"), size, &objects);
    write_file(&folder.join(format!("Annotations/{name}.xml")), text.as_bytes())?;
    let with_masks = objects.into_iter().map(|object| {
        let runs = annotation::run_lengths(&drawn.picture.instances, size, object.instance);
        (object, runs)
    });
    Ok(Entry { name, objects: with_masks.collect() })
}

/// Writes the set's list of names, and its JSON file where there is one.
fn write_set(set: &str, size: Size, labels: Labels, entries: Vec<Entry>, folder: &Path) -> Result<(), SynthError> {
    let names = lines(entries.iter().map(|entry| entry.name.as_str()));
    let lists = match labels {
        Labels::Segmentation => "ImageSets/Segmentation",
        Labels::Detection => "ImageSets/Main",
    };
    write_file(&folder.join(format!("{lists}/{set}.txt")), names.as_bytes())?;
    if labels == Labels::Segmentation {
        return Ok(());
    }
    let mut instances = Instances::new();
    for entry in entries {
        instances.add(format!("{}.jpg", entry.name), size, entry.objects);
    }
    let json = serde_json::to_vec(&instances).expect("numbers and names can be written as JSON");
    write_file(&folder.join(format!("annotations/instances_{set}.json")), &json)
}

/// One name a line.
fn lines<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.flat_map(|name| [name, "\n"]).collect()
}
