//! Images of data sets.

use std::fs;
use std::path::{Path, PathBuf};

use ::image::ImageFormat;

use super::DatasetError;
use densecl_vision::image::{DecodeLimits, ImageSize, RgbImage, decode};

/// Limit against files that would exhaust the memory. The files are the user's own, so it is generous.
pub(super) const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 200_000_000 };

/// A decoded image and its file.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// The pixels, after the EXIF orientation is applied.
    pub image: RgbImage,
}

impl Picture {
    /// Width and height, in pixels.
    pub fn size(&self) -> ImageSize {
        ImageSize::from(self.image.dimensions())
    }
}

/// Reads an image in one of the server's formats or in PPM.
///
/// # Errors
/// [`DatasetError`] if the file cannot be read or decoded.
pub fn read_picture(path: &Path) -> Result<Picture, DatasetError> {
    let bytes = read(path)?;
    let image = if bytes.first() == Some(&b'P') {
        ::image::load_from_memory_with_format(&bytes, ImageFormat::Pnm)
            .map_err(|source| DatasetError::Ppm { path: path.to_owned(), source })?
            .into_rgb8()
    } else {
        decode(&bytes, &LIMITS).map_err(|source| DatasetError::Picture { path: path.to_owned(), source })?
    };
    Ok(Picture { path: path.to_owned(), image })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, DatasetError> {
    fs::read(path).map_err(|source| DatasetError::Unreadable { path: path.to_owned(), source })
}
