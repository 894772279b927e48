//! A folder of images, searched to any depth.

use std::io;
use std::path::{Path, PathBuf};

use image::imageops::FilterType;
use image::{ImageDecoder, ImageReader};

use super::{ImageError, ImageSource};
use crate::augment::ImageSize;

/// File name endings that are taken for images.
const EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// All images below a folder, by path.
#[derive(Debug)]
pub struct ImageFolder {
    paths: Vec<PathBuf>,
}

/// A folder that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It, or a folder below it, cannot be listed.
    #[error("cannot read the data folder {path}")]
    Unreadable {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No image was found.
    #[error("no image in {path} or the folders below it; looked for {}", EXTENSIONS.join(", "))]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

impl ImageFolder {
    /// Finds the images below `root`. Links to folders are not followed, so that no search is endless.
    ///
    /// # Errors
    /// If a folder cannot be listed or there is no image.
    pub fn open(root: &Path) -> Result<Self, FolderError> {
        let mut paths = Vec::new();
        let mut open = vec![root.to_owned()];
        while let Some(folder) = open.pop() {
            let unreadable = |source| FolderError::Unreadable { path: folder.clone(), source };
            for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
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
            return Err(FolderError::Empty { path: root.to_owned() });
        }
        // Folders list their entries in no particular order; a run must not depend on it.
        paths.sort_unstable();
        Ok(Self { paths })
    }
}

impl ImageSource for ImageFolder {
    fn image_count(&self) -> Option<u64> {
        Some(self.paths.len() as u64)
    }

    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
        let path = &self.paths[index as usize];
        let image = decode(path).map_err(|source| ImageError { path: path.clone(), source })?;
        let size = ImageSize { width: image.width(), height: image.height() };
        let squeezed = image.resize_exact(canvas_px, canvas_px, FilterType::Triangle).into_rgb8();
        canvas.copy_from_slice(&squeezed);
        Ok(size)
    }
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Decodes by content, the right way up.
fn decode(path: &Path) -> image::ImageResult<image::DynamicImage> {
    let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = image::DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_images_at_any_depth_and_reads_them_onto_the_canvas() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("a/b");
        std::fs::create_dir_all(&deep).unwrap();
        let red = image::RgbImage::from_pixel(30, 20, image::Rgb([200, 10, 10]));
        red.save(deep.join("red.PNG")).unwrap();
        std::fs::write(root.path().join("notes.txt"), b"not an image").unwrap();
        std::fs::write(root.path().join("z.jpg"), b"not a jpeg").unwrap();
        let folder = ImageFolder::open(root.path()).unwrap();
        assert_eq!(folder.image_count(), Some(2));
        let mut canvas = vec![0; 16 * 16 * 3];
        assert_eq!(folder.draw(0, 16, &mut canvas).unwrap(), ImageSize { width: 30, height: 20 });
        assert_eq!(canvas[..3], [200, 10, 10]);
        let error = folder.draw(1, 16, &mut canvas).unwrap_err();
        assert!(error.to_string().contains("z.jpg"));
    }

    #[test]
    fn an_empty_folder_says_what_was_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let message = ImageFolder::open(root.path()).unwrap_err().to_string();
        assert!(message.contains("jpg") && message.contains("webp"), "{message}");
    }
}
