//! Writes procedural data to disk: single images, and what measures features with exact truth.
//!
//! `images` are numbered PNG files. `pairs` are sequences in the `HPatches` layout (V. Balntas,
//! K. Lenc, A. Vedaldi and K. Mikolajczyk, CVPR 2017): `v_NNNN` with a change of viewpoint and of
//! light, `i_NNNN` with a change of light alone, each with `1.ppm` to `6.ppm` and `H_1_2` to `H_1_6`.
//! `scenes` are sequences of moving objects with dense correspondences; `segmentation` and
//! `detection` are labelled pictures in the layouts of PASCAL VOC and COCO.
//!
//! Invariants: what is written is a pure function of kind, count, seed and options, whatever the
//! number of threads; the output folder appears whole or not at all, and nothing is overwritten.

mod annotation;
mod coco;
mod labelled;
mod motion;
mod npy;
mod output;
mod photometry;
mod scenes;
mod sequence;
mod size;
mod view;
mod voc;

use std::io;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use self::size::{ParseSizeError, Size};

use self::labelled::{Labels, Sets};
use self::output::{
    create_output, finish_output, make_folder, numbered, write_file, write_rgb_jpeg, write_rgb_png, write_voc_labels,
};
use self::scenes::Clip;
use crate::{ProceduralImages, Split};

/// Kind of set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single pictures as PNG.
    Images,
    /// Sequences of six views of a plane, with homographies.
    Pairs,
    /// Sequences of moving objects, with masks and dense correspondences.
    Scenes,
    /// Pictures with the category of every pixel.
    Segmentation,
    /// Pictures with the boxes and masks of their objects.
    Detection,
}

impl Kind {
    /// The size in pixels when none is asked for.
    fn default_size(self) -> Size {
        match self {
            Self::Images => Size { width_px: 256, height_px: 256 },
            Self::Pairs | Self::Scenes | Self::Segmentation | Self::Detection => Size { width_px: 480, height_px: 360 },
        }
    }
}

/// Options besides kind, count and seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Size of every picture; 256 × 256 for images and 480 × 360 for the rest unless given.
    pub size: Option<Size>,
    /// Training pictures or held-out ones. Held out unless given, since what is written is mostly
    /// used to measure. The labelled kinds have both: training pictures in `train`, held-out ones in
    /// `val`.
    pub split: Split,
    /// Frames of each of the scenes' sequences.
    pub frames: usize,
    /// Pictures of the labelled kinds' `val`, besides the `count` of `train`; a fifth of them, rounded
    /// up, unless given.
    pub val_count: Option<usize>,
}

impl Options {
    /// Frames of a sequence unless asked for.
    pub const DEFAULT_FRAMES: usize = 8;
}

impl Default for Options {
    fn default() -> Self {
        Self { size: None, split: Split::HeldOut, frames: Self::DEFAULT_FRAMES, val_count: None }
    }
}

/// Numbers of pictures and sequences that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Pictures, those of sequences included.
    pub images: usize,
    /// Sequences; 0 for kinds of single pictures.
    pub sequences: usize,
}

/// Reason why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum SynthError {
    /// Zero pictures or sequences were asked for.
    #[error("nothing to write: the count is 0")]
    NothingToWrite,
    /// A sequence of less than two frames shows no motion.
    #[error("a sequence needs at least 2 frames")]
    TooFewFrames,
    /// The output folder holds something.
    #[error("{} is not empty: choose a new folder or remove it first", .0.display())]
    NotEmpty(PathBuf),
    /// The output is a file.
    #[error("{} is not a folder", .0.display())]
    NotAFolder(PathBuf),
    /// The file system refused.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or folder in question.
        path: PathBuf,
        /// The refusal.
        #[source]
        source: io::Error,
    },
    /// A picture could not be encoded or written.
    #[error("cannot write the picture {}", path.display())]
    Encode {
        /// The picture in question.
        path: PathBuf,
        /// The encoder's reason.
        #[source]
        source: image::ImageError,
    },
}

/// Writes `count` pictures or sequences of `kind` into the folder `out`, which must be new or empty.
///
/// # Errors
/// When `count` is 0, when frames are too few, when `out` is a file or holds anything, or when the
/// file system refuses. `out` is then as it was before.
pub fn run(kind: Kind, count: usize, seed: u64, out: &Path, options: &Options) -> Result<Summary, SynthError> {
    if count == 0 {
        return Err(SynthError::NothingToWrite);
    }
    if options.frames < 2 {
        return Err(SynthError::TooFewFrames);
    }
    let output = create_output(out)?;
    let folder = output.temporary_path();
    let size = options.size.unwrap_or(kind.default_size());
    let source = ProceduralImages::new(seed, size.height_px).with_split(options.split);
    let sets = Sets { train: count, val: options.val_count.unwrap_or(count.div_ceil(5)) };
    let summary = match kind {
        Kind::Images => write_images(&source, size, count, folder)?,
        Kind::Pairs => sequence::write_all(&source, seed, size, count, folder)?,
        Kind::Scenes => scenes::write_all(&source, Clip { size, frames: options.frames }, count, folder)?,
        Kind::Segmentation => labelled::write_all(&source, size, &sets, Labels::Segmentation, folder)?,
        Kind::Detection => labelled::write_all(&source, size, &sets, Labels::Detection, folder)?,
    };
    finish_output(output, out)?;
    Ok(summary)
}

fn write_images(source: &ProceduralImages, size: Size, count: usize, folder: &Path) -> Result<Summary, SynthError> {
    (0..count).into_par_iter().try_for_each(|index| {
        let picture = source.render_frame(index as u64, size.frame());
        write_rgb_png(&folder.join(format!("{}.png", numbered(index, count))), &picture.pixels, size)
    })?;
    Ok(Summary { images: count, sequences: 0 })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Every file below `folder` with its bytes, sorted by name.
    fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files.extend(contents(&path));
            } else {
                files.push((path.clone(), fs::read(&path).unwrap()));
            }
        }
        files.sort();
        files
    }

    fn bytes_of(kind: Kind, seed: u64, threads: usize) -> Vec<Vec<u8>> {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("set");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let size = Some(Size { width_px: 64, height_px: 48 });
        let options = Options { size, ..Options::default() };
        pool.install(|| run(kind, 4, seed, &out, &options)).unwrap();
        contents(&out).into_iter().map(|(_, bytes)| bytes).collect()
    }

    #[test]
    fn output_depends_on_the_seed_and_not_on_the_threads() {
        for kind in [Kind::Images, Kind::Pairs, Kind::Scenes, Kind::Segmentation, Kind::Detection] {
            let one = bytes_of(kind, 3, 1);
            assert_eq!(one, bytes_of(kind, 3, 3));
            assert_ne!(one, bytes_of(kind, 4, 3));
        }
    }

    #[test]
    fn images_are_numbered_and_of_the_size() {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("deep/images");
        let summary = run(Kind::Images, 2, 1, &out, &Options::default()).unwrap();
        assert_eq!(summary, Summary { images: 2, sequences: 0 });
        let picture = image::open(out.join("0001.png")).unwrap().into_rgb8();
        assert_eq!(picture.dimensions(), (256, 256));
        assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
        // The temporary folder is gone.
        assert_eq!(fs::read_dir(out.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn sequences_have_the_hpatches_layout() {
        let folder = TempDir::new().unwrap();
        let size = Some(Size { width_px: 60, height_px: 40 });
        let options = Options { size, ..Options::default() };
        // An empty folder that is already there is welcome.
        let summary = run(Kind::Pairs, 4, 1, folder.path(), &options).unwrap();
        assert_eq!(summary, Summary { images: 24, sequences: 4 });
        for name in ["v_0000", "v_0001", "v_0002", "i_0003"] {
            let sequence = folder.path().join(name);
            for view in 1..=6 {
                let bytes = fs::read(sequence.join(format!("{view}.ppm"))).unwrap();
                assert!(bytes.starts_with(b"P6\n60 40\n255\n"));
                assert_eq!(bytes.len(), 13 + 3 * 60 * 40);
            }
            for view in 2..=6 {
                let text = fs::read_to_string(sequence.join(format!("H_1_{view}"))).unwrap();
                let rows: Vec<Vec<f64>> =
                    text.lines().map(|line| line.split_whitespace().map(|x| x.parse().unwrap()).collect()).collect();
                assert!(rows.len() == 3 && rows.iter().all(|row| row.len() == 3));
                let identity = vec![vec![1.0, 0.0, 0.0], vec![0.0, 1.0, 0.0], vec![0.0, 0.0, 1.0]];
                assert_eq!(rows == identity, name.starts_with('i'));
            }
        }
    }

    /// The files of a small set, relative to its folder.
    fn layout(kind: Kind, options: &Options) -> Vec<String> {
        let folder = TempDir::new().unwrap();
        let out = folder.path().join("set");
        let size = Some(Size { width_px: 64, height_px: 48 });
        run(kind, 2, 1, &out, &Options { size, ..*options }).unwrap();
        let name = |path: PathBuf| path.strip_prefix(&out).unwrap().to_str().unwrap().to_owned();
        contents(&out).into_iter().map(|(path, _)| name(path)).collect()
    }

    #[test]
    fn scenes_have_their_layout() {
        let mut expected = Vec::new();
        for sequence in ["0000", "0001"] {
            for (folder, frames, ending) in
                [("frames", 0..3, "png"), ("masks", 0..3, "png"), ("positions", 1..3, "npy"), ("visible", 1..3, "npy")]
            {
                expected.extend(frames.map(|frame| format!("{sequence}/{folder}/{frame:04}.{ending}")));
            }
        }
        assert_eq!(layout(Kind::Scenes, &Options { frames: 3, ..Options::default() }), expected);
    }

    #[test]
    fn labelled_kinds_have_the_layouts_of_voc_and_coco() {
        let named = |folder: &str, ending: &str| {
            ["train_0000", "train_0001", "val_0000"].map(|name| format!("{folder}/{name}.{ending}"))
        };
        let lists = |folder: &str| ["train", "val"].map(|set| format!("ImageSets/{folder}/{set}.txt"));
        let segmentation: Vec<String> = lists("Segmentation")
            .into_iter()
            .chain(named("JPEGImages", "jpg"))
            .chain(named("SegmentationClass", "png"))
            .chain(named("SegmentationObject", "png"))
            .chain(["classes.txt".to_owned()])
            .collect();
        assert_eq!(layout(Kind::Segmentation, &Options::default()), segmentation);
        let detection: Vec<String> = named("Annotations", "xml")
            .into_iter()
            .chain(lists("Main"))
            .chain(named("JPEGImages", "jpg"))
            .chain(["train", "val"].map(|set| format!("annotations/instances_{set}.json")))
            .chain(["classes.txt".to_owned()])
            .collect();
        assert_eq!(layout(Kind::Detection, &Options { val_count: Some(1), ..Options::default() }), detection);
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("note.txt");
        fs::write(&file, "mine").unwrap();
        let into_folder = run(Kind::Images, 1, 0, folder.path(), &Options::default());
        assert!(matches!(into_folder, Err(SynthError::NotEmpty(_))));
        let onto_file = run(Kind::Images, 1, 0, &file, &Options::default());
        assert!(matches!(onto_file, Err(SynthError::NotAFolder(_))));
        let none = run(Kind::Images, 0, 0, &folder.path().join("new"), &Options::default());
        assert!(matches!(none, Err(SynthError::NothingToWrite)));
        let options = Options { frames: 1, ..Options::default() };
        let still = run(Kind::Scenes, 1, 0, &folder.path().join("new"), &options);
        assert!(matches!(still, Err(SynthError::TooFewFrames)));
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
