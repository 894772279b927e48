//! Image files: those of a folder, searched to any depth, or those that a list names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use densecl_vision::image::PICTURE_EXTENSIONS;

use super::list::{self, ListError};
use super::passed_over::PassedOverReason;
use super::walk::{FoundImages, WalkError, find_images};
use super::{ImageError, ImageSource, Tally, decode};
use crate::augment::ImageSize;

/// Image files in a fixed order.
#[derive(Debug)]
pub struct ImageFiles {
    /// The folder or the list.
    root: PathBuf,
    paths: Vec<PathBuf>,
    passed_over: Tally<PassedOverReason>,
}

/// A folder or list without usable images.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A folder cannot be read.
    #[error("cannot read the data in {path}")]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A list cannot be used.
    #[error(transparent)]
    List(#[from] ListError),
    /// No image was found.
    #[error(
        "no image in {path} or the folders below it; looked for {}{}", PICTURE_EXTENSIONS.join(", "),
        if passed_over.is_empty() { String::new() } else { format!("; passed over: {passed_over}") }
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
        /// Content that was found instead.
        passed_over: Tally<PassedOverReason>,
    },
}

impl From<WalkError> for FilesError {
    fn from(WalkError { path, source }: WalkError) -> Self {
        Self::Unreadable { path, source }
    }
}

impl ImageFiles {
    /// Finds the images below `root`, sorted by path. Links are followed; hidden files and those of systems are passed
    /// over.
    ///
    /// # Errors
    /// If a folder cannot be listed or there is no image.
    pub fn in_folder(root: &Path) -> Result<Self, FilesError> {
        let FoundImages { paths, passed_over } = find_images(root)?;
        if paths.is_empty() {
            return Err(FilesError::EmptyFolder { path: root.to_owned(), passed_over });
        }
        Ok(Self { root: root.to_owned(), paths, passed_over })
    }

    /// Reads the text file `list`: a path a line, relative to the list's folder or to the current one, alone or beside
    /// labels. Empty lines and lines that begin with `#` are ignored.
    ///
    /// # Errors
    /// If the list cannot be read, or none of its files is there.
    pub fn listed(list: &Path) -> Result<Self, FilesError> {
        let FoundImages { paths, passed_over } = list::read(list)?;
        Ok(Self { root: list.to_owned(), paths, passed_over })
    }
}

impl ImageSource for ImageFiles {
    fn image_count(&self) -> Option<u64> {
        Some(self.paths.len() as u64)
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn passed_over(&self) -> Tally<PassedOverReason> {
        self.passed_over.clone()
    }

    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
        let path = &self.paths[index as usize];
        let drawn = fs::read(path).map_err(Into::into).and_then(|file| decode::draw(&file, canvas_px, canvas));
        drawn.map_err(|source| ImageError { path: path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_images_at_any_depth_and_reads_them_onto_the_canvas() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        fs::create_dir_all(&deep).unwrap();
        let red = image::RgbImage::from_pixel(30, 20, image::Rgb([200, 10, 10]));
        red.save(deep.join("red.PNG")).unwrap();
        fs::write(root.path().join("notes.txt"), b"not an image").unwrap();
        fs::write(root.path().join("z.jpg"), b"not a jpeg").unwrap();
        let folder = ImageFiles::in_folder(root.path()).unwrap();
        assert_eq!(folder.image_count(), Some(2));
        let mut canvas = vec![0; 16 * 16 * 3];
        assert_eq!(folder.draw(0, 16, &mut canvas).unwrap(), ImageSize { width: 30, height: 20 });
        assert_eq!(canvas[..3], [200, 10, 10]);
        let error = folder.draw(1, 16, &mut canvas).unwrap_err();
        assert!(error.to_string().contains("z.jpg"));
    }

    #[test]
    fn nothing_to_train_on_says_what_was_looked_for_and_found() {
        let root = tempfile::tempdir().unwrap();
        let message = || ImageFiles::in_folder(root.path()).unwrap_err().to_string();
        assert!(message().contains("jpg") && message().ends_with("webp, bmp, tif, tiff"), "{}", message());
        for name in ["1.heic", "train.tar.gz", "._1.jpg"] {
            fs::write(root.path().join(name), b"").unwrap();
        }
        for part in ["1.heic", "have to be unpacked: 1", "hidden files"] {
            assert!(message().contains(part), "{}", message());
        }
    }

    #[test]
    fn a_list_names_files_beside_it_in_its_own_order() {
        let root = tempfile::tempdir().unwrap();
        for (name, level) in [("a.png", 10), ("b.png", 200)] {
            image::RgbImage::from_pixel(4, 4, image::Rgb([level; 3])).save(root.path().join(name)).unwrap();
        }
        let list = root.path().join("list.txt");
        fs::write(&list, "b.png\n\n# a remark\n  a.png  \nmissing.png\n").unwrap();
        let files = ImageFiles::listed(&list).unwrap();
        assert_eq!((files.image_count(), files.passed_over().total()), (Some(2), 1));
        let mut canvas = vec![0; 4 * 4 * 3];
        files.draw(0, 4, &mut canvas).unwrap();
        assert_eq!(canvas[0], 200);
        fs::remove_file(root.path().join("a.png")).unwrap();
        assert!(files.draw(1, 4, &mut canvas).unwrap_err().to_string().contains("a.png"));
    }
}
