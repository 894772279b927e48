//! Image files: those of a folder, searched to any depth, or those that a list names.

use std::path::{Path, PathBuf};
use std::{fs, io};

use densecl_vision::image::{PICTURE_EXTENSIONS, is_picture_extension};

use super::{ImageError, ImageSource, decode};
use crate::augment::ImageSize;

/// Image files in a fixed order.
#[derive(Debug)]
pub struct ImageFiles {
    /// The folder or the list.
    root: PathBuf,
    paths: Vec<PathBuf>,
}

/// A folder or list without usable images.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A folder or a list cannot be read.
    #[error("cannot read the data in {path}")]
    Unreadable {
        /// The folder or file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// No image was found.
    #[error("no image in {path} or the folders below it; looked for {}", PICTURE_EXTENSIONS.join(", "))]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A list names nothing.
    #[error("no image in the list {path}; looked for one path a line, relative to the list's folder")]
    EmptyList {
        /// The list.
        path: PathBuf,
    },
}

impl ImageFiles {
    /// Finds the images below `root`, sorted by path. Links to folders are not followed, because they
    /// may form a loop.
    ///
    /// # Errors
    /// If a folder cannot be listed or there is no image.
    pub fn in_folder(root: &Path) -> Result<Self, FilesError> {
        let mut paths = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let unreadable = |source| FilesError::Unreadable { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let kind = entry.file_type().map_err(unreadable)?;
                let path = entry.path();
                if kind.is_dir() {
                    open.push(path);
                } else if is_image(&path) {
                    paths.push(path);
                }
            }
        }
        if paths.is_empty() {
            return Err(FilesError::EmptyFolder { path: root.to_owned() });
        }
        // The order in which a folder lists its entries differs between systems.
        paths.sort_unstable();
        Ok(Self { root: root.to_owned(), paths })
    }

    /// Reads the text file `list`: one path a line, relative to the list's folder. Empty lines and lines
    /// that begin with `#` are ignored.
    ///
    /// # Errors
    /// If the list cannot be read or names nothing.
    pub fn listed(list: &Path) -> Result<Self, FilesError> {
        let text =
            fs::read_to_string(list).map_err(|source| FilesError::Unreadable { path: list.to_owned(), source })?;
        let folder = list.parent().unwrap_or(Path::new(""));
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let paths: Vec<_> = lines.map(|line| folder.join(line)).collect();
        if paths.is_empty() {
            return Err(FilesError::EmptyList { path: list.to_owned() });
        }
        Ok(Self { root: list.to_owned(), paths })
    }
}

impl ImageSource for ImageFiles {
    fn image_count(&self) -> Option<u64> {
        Some(self.paths.len() as u64)
    }

    fn root(&self) -> Option<&Path> {
        Some(&self.root)
    }

    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
        let path = &self.paths[index as usize];
        let drawn = fs::read(path).map_err(Into::into).and_then(|file| decode::draw(&file, canvas_px, canvas));
        drawn.map_err(|source| ImageError { path: path.clone(), source })
    }
}

fn is_image(path: &Path) -> bool {
    is_picture_extension(path.extension().and_then(|extension| extension.to_str()).unwrap_or_default())
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
    fn nothing_to_train_on_says_what_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let message = ImageFiles::in_folder(root.path()).unwrap_err().to_string();
        assert!(message.contains("jpg") && message.contains("webp"), "{message}");
        let list = root.path().join("list.txt");
        fs::write(&list, "# nothing\n\n").unwrap();
        assert!(ImageFiles::listed(&list).unwrap_err().to_string().contains("one path a line"));
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
        assert_eq!(files.image_count(), Some(3));
        let mut canvas = vec![0; 4 * 4 * 3];
        files.draw(0, 4, &mut canvas).unwrap();
        assert_eq!(canvas[0], 200);
        assert!(files.draw(2, 4, &mut canvas).unwrap_err().to_string().contains("missing.png"));
    }
}
