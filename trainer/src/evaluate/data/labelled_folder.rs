//! Images sorted into folders by class.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{DataError, layout, listing, name_of};
use crate::data::walk::{FoundImages, find_images, visible_entries};
use crate::data::{PassedOverReason, Tally, passed_over};
use densecl_vision::image::PICTURE_EXTENSIONS;

/// Share of each class that tests where the folder has no `val`.
const TEST_SHARE: f64 = 0.2;

const EXPECTED: &str = "train/<class>/ and val/<class>/, or <class>/ alone, with images in them";

/// Image files and the number of the class of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelledFiles {
    /// The files.
    pub paths: Vec<PathBuf>,
    /// Numbers into [`LabelledFolder::classes`].
    pub labels: Vec<usize>,
}

/// `train/<class>/*` and `val/<class>/*`; without `val`, or with `<class>/*` alone, a share of each
/// class is drawn for testing.
#[derive(Clone, Debug)]
pub struct LabelledFolder {
    /// Names of the classes, sorted.
    pub classes: Vec<String>,
    train: LabelledFiles,
    val: Option<LabelledFiles>,
}

impl LabelledFolder {
    /// Lists the images below `root`, and logs what is passed over. Links are followed; hidden files and folders, and those
    /// of systems, are neither images nor classes.
    ///
    /// # Errors
    /// If there are fewer than two classes, a class without images, or a class of `val` that `train`
    /// lacks.
    pub fn open(root: &Path) -> Result<Self, DataError> {
        let (train, val) = (root.join("train"), root.join("val"));
        let train = if train.is_dir() { train } else { root.to_owned() };
        let folders = folders_of(&train)?;
        let classes: Vec<String> = folders.iter().map(|folder| name_of(folder)).collect();
        if classes.len() < 2 {
            return Err(layout(root, EXPECTED, listing(root)));
        }
        let mut passed_over = Tally::default();
        let train = files(&folders, &mut passed_over)?;
        let val = val.is_dir().then(|| tested(&val, &folders, &mut passed_over)).transpose()?;
        let images = train.paths.len() + val.as_ref().map_or(0, |val| val.paths.len());
        passed_over::log(&root.display(), Some(images as u64), &passed_over);
        Ok(Self { classes, train, val })
    }

    /// Returns `true` if there is no `val`, so that [`LabelledFolder::split`] draws.
    pub fn is_drawn(&self) -> bool {
        self.val.is_none()
    }

    /// Returns training and test images. If the folder has a `val`, `seed` is ignored.
    ///
    /// # Errors
    /// If a class has too few images to be split.
    pub fn split(&self, seed: u64) -> Result<(LabelledFiles, LabelledFiles), DataError> {
        if let Some(val) = &self.val {
            return Ok((self.train.clone(), val.clone()));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let (mut train, mut test) = (LabelledFiles::default(), LabelledFiles::default());
        for label in 0..self.classes.len() {
            let members = self.train.labels.iter().zip(&self.train.paths).filter(|(of, _)| **of == label);
            let mut members: Vec<&PathBuf> = members.map(|(_, path)| path).collect();
            if let [alone] = members[..] {
                return Err(layout(alone, "at least two images of each class, as there is no val/", "one"));
            }
            members.shuffle(&mut rng);
            let tested = ((members.len() as f64 * TEST_SHARE).round() as usize).max(1);
            for (i, path) in members.into_iter().enumerate() {
                let side = if i < tested { &mut test } else { &mut train };
                side.paths.push(path.clone());
                side.labels.push(label);
            }
        }
        Ok((train, test))
    }
}

/// The folders in a folder.
fn folders_of(root: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut entries = visible_entries(root)?;
    entries.retain(|path| path.is_dir());
    Ok(entries)
}

/// The images of `val`, of whose classes `train` may have more.
fn tested(
    val: &Path,
    train: &[PathBuf],
    passed_over: &mut Tally<PassedOverReason>,
) -> Result<LabelledFiles, DataError> {
    let folders = folders_of(val)?;
    let number = |folder: &PathBuf| train.iter().position(|class| class.file_name() == folder.file_name());
    let mut numbers = Vec::new();
    for folder in &folders {
        numbers.push(number(folder).ok_or_else(|| {
            let names: Vec<_> =
                train.iter().filter_map(|class| class.file_name()).map(OsStr::to_string_lossy).collect();
            layout(folder, "a class that train/ has, too", names.join(", "))
        })?);
    }
    let mut files = files(&folders, passed_over)?;
    for label in &mut files.labels {
        *label = numbers[*label];
    }
    if files.paths.is_empty() {
        return Err(layout(val, "<class>/ with images in them", listing(val)));
    }
    Ok(files)
}

/// The images of each class, searched to any depth; a label is the number of the class's folder.
fn files(classes: &[PathBuf], passed_over: &mut Tally<PassedOverReason>) -> Result<LabelledFiles, DataError> {
    let mut files = LabelledFiles::default();
    for (label, folder) in classes.iter().enumerate() {
        let FoundImages { paths, passed_over: beside } = find_images(folder)?;
        passed_over.merge(&beside);
        if paths.is_empty() {
            let expected = format!("images ({}) of the class `{}`", PICTURE_EXTENSIONS.join(", "), name_of(folder));
            return Err(layout(folder, expected, listing(folder)));
        }
        files.labels.resize(files.labels.len() + paths.len(), label);
        files.paths.extend(paths);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn make(root: &Path, files: &[&str]) {
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
    }

    #[test]
    fn train_and_val_are_taken_as_they_are() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["train/cat/1.jpg", "train/ant/2.PNG", "train/dog/3.jpg", "train/cat/deep/4.webp"]);
        make(root.path(), &["train/cat/notes.txt", "val/dog/5.jpg", "train/.cache/6.jpg"]);
        let folder = LabelledFolder::open(root.path()).unwrap();
        assert_eq!(folder.classes, ["ant", "cat", "dog"]);
        let (train, val) = folder.split(0).unwrap();
        assert_eq!(train.labels, [0, 1, 1, 2]);
        assert_eq!(val, LabelledFiles { paths: vec![root.path().join("val/dog/5.jpg")], labels: vec![2] });
        assert!(!folder.is_drawn());
    }

    #[test]
    fn what_systems_leave_is_no_class_and_links_are_followed() {
        let root = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        make(elsewhere.path(), &["cats/1.jpg", "cats/2.jpg"]);
        let names = ["ant/1.jpg", "ant/._1.jpg", "ant/@eaDir/1.jpg", "ant/Thumbs.db", "dog/2.jpg"];
        make(root.path(), &names.map(|name| format!("train/{name}")).each_ref().map(String::as_str));
        make(
            root.path(),
            &["train/__MACOSX/ant/._1.jpg", "train/@eaDir/x/1.jpg", "train/lost+found/x", "val/ant/3.jpg"],
        );
        make(root.path(), &["val/__MACOSX/ant/._3.jpg"]);
        std::os::unix::fs::symlink(elsewhere.path().join("cats"), root.path().join("train/cat")).unwrap();
        std::os::unix::fs::symlink("..", root.path().join("train/dog/loop")).unwrap();
        let folder = LabelledFolder::open(root.path()).unwrap();
        assert_eq!(folder.classes, ["ant", "cat", "dog"]);
        let (train, val) = folder.split(0).unwrap();
        assert_eq!((train.labels.as_slice(), val.labels.as_slice()), ([0, 1, 1, 2].as_slice(), [0].as_slice()));
    }

    #[test]
    fn classes_may_have_names_in_other_encodings() {
        use std::os::unix::ffi::OsStrExt as _;
        let root = tempfile::tempdir().unwrap();
        for class in [&b"caf\xe9"[..], b"tea"] {
            let folder = root.path().join(OsStr::from_bytes(class));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("1.jpg"), b"").unwrap();
        }
        assert_eq!(LabelledFolder::open(root.path()).unwrap().classes, ["caf\u{fffd}", "tea"]);
    }

    #[test]
    fn without_val_the_seed_draws_from_every_class() {
        let root = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..20).map(|i| format!("{}/{i}.jpg", ["a", "b"][i % 2])).collect();
        make(root.path(), &names.iter().map(String::as_str).collect::<Vec<_>>());
        let folder = LabelledFolder::open(root.path()).unwrap();
        assert!(folder.is_drawn());
        let (train, test) = folder.split(1).unwrap();
        assert_eq!((train.paths.len(), test.labels.as_slice()), (16, [0, 0, 1, 1].as_slice()));
        assert!(test.paths.iter().all(|path| !train.paths.contains(path)));
        assert_eq!(folder.split(1).unwrap().1, test);
        assert_ne!(folder.split(2).unwrap().1, test);
    }

    #[test]
    fn errors_name_what_is_wrong_with_a_folder() {
        let message = |files: &[&str]| {
            let root = tempfile::tempdir().unwrap();
            make(root.path(), files);
            let opened = LabelledFolder::open(root.path()).and_then(|folder| folder.split(0).map(drop));
            opened.unwrap_err().to_string()
        };
        assert!(message(&["JPEGImages/1.jpg"]).contains("found JPEGImages"));
        assert!(message(&["train/a/1.jpg", "train/b/notes.txt"]).contains("images (jpg"));
        let unknown = message(&["train/a/1.jpg", "train/b/2.jpg", "val/c/3.jpg"]);
        assert!(unknown.contains("val/c") && unknown.contains("found a, b"), "{unknown}");
        assert!(message(&["a/1.jpg", "b/2.jpg", "b/3.jpg"]).contains("at least two images"));
    }
}
