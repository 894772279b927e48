//! Folders and files of a set.

use std::fs;
use std::io;
use std::path::Path;

use densecl_models::atomic_file::AtomicFolder;
use densecl_vision::image::{ImageSize, LabelStyle, encode_labels};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageFormat};

use super::SynthError;
use super::size::Size;

/// Quality of JPEG files: artefacts are below the noise of most pictures.
const JPEG_QUALITY: u8 = 95;

/// A folder that appears at `out` when it is complete; `out` must be absent or an empty folder.
pub(super) fn create_output(out: &Path) -> Result<AtomicFolder, SynthError> {
    refuse_occupied(out)?;
    AtomicFolder::create(out).map_err(|source| write_error(out, source))
}

/// Gives the folder its name, `out`.
pub(super) fn finish_output(folder: AtomicFolder, out: &Path) -> Result<(), SynthError> {
    folder.commit().map_err(|source| write_error(out, source))
}

/// An error unless `out` is absent or an empty folder.
fn refuse_occupied(out: &Path) -> Result<(), SynthError> {
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(SynthError::NotEmpty(out.to_owned())),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(SynthError::NotAFolder(out.to_owned())),
        Err(source) => Err(write_error(out, source)),
    }
}

/// `index` with leading zeros: four digits, or as many as the last of `count` needs.
pub(super) fn numbered(index: usize, count: usize) -> String {
    let digits = count.saturating_sub(1).to_string().len().max(4);
    format!("{index:0digits$}")
}

/// Makes `path`, and the folders above it.
pub(super) fn make_folder(path: &Path) -> Result<(), SynthError> {
    fs::create_dir_all(path).map_err(|source| write_error(path, source))
}

pub(super) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), SynthError> {
    fs::write(path, bytes).map_err(|source| write_error(path, source))
}

/// Writes RGB bytes in row order as PNG.
pub(super) fn write_rgb_png(path: &Path, pixels: &[u8], size: Size) -> Result<(), SynthError> {
    let (width, height) = (size.width_px, size.height_px);
    image::save_buffer_with_format(path, pixels, width, height, ExtendedColorType::Rgb8, ImageFormat::Png)
        .map_err(|source| SynthError::Encode { path: path.to_owned(), source })
}

/// Writes labels `[height, width]` as PNG with the palette of PASCAL VOC.
pub(super) fn write_voc_labels(path: &Path, labels: &[u8], size: Size) -> Result<(), SynthError> {
    let image_size = ImageSize { width: size.width_px, height: size.height_px };
    let bytes = encode_labels(labels, image_size, &LabelStyle::voc())
        .map_err(|source| write_error(path, io::Error::other(source)))?;
    write_file(path, &bytes)
}

/// Writes RGB bytes in row order as JPEG.
pub(super) fn write_rgb_jpeg(path: &Path, pixels: &[u8], size: Size) -> Result<(), SynthError> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY)
        .encode(pixels, size.width_px, size.height_px, ExtendedColorType::Rgb8)
        .map_err(|source| SynthError::Encode { path: path.to_owned(), source })?;
    write_file(path, &bytes)
}

pub(super) fn write_error(path: &Path, source: io::Error) -> SynthError {
    SynthError::Write { path: path.to_owned(), source }
}
