//! Pictures of data sets.

use std::fs;
use std::path::{Path, PathBuf};

use ::image::ImageFormat;

use super::DatasetError;
use densecl_vision::image::{DecodeLimits, ImageSize, RgbImage, decode};

/// The files are one's own: the limit is only there to notice a wrong one before the memory is gone.
pub(super) const LIMITS: DecodeLimits = DecodeLimits { max_pixels: 200_000_000 };

/// A decoded picture, and where it came from.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The file.
    pub path: PathBuf,
    /// Its pixels, after its EXIF orientation.
    pub image: RgbImage,
}

impl Picture {
    /// Its width and height.
    pub fn size(&self) -> ImageSize {
        ImageSize::from(self.image.dimensions())
    }
}

/// Reads a picture; PPM too, which the server does not take.
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
