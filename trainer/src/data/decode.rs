//! From the bytes of an image file to a square canvas, by the server's decoder and resizing: a network is trained on
//! the pixels that it is served with.

use std::io;
use std::path::Path;

use densecl_vision::image::{DecodeError, DecodeLimits, ResizeError, RgbImage, decode, resize_into};

use crate::augment::ImageSize;

/// Limits of the images of a data set: four times the pixels that the server decodes by default.
pub(crate) const DECODE_LIMITS: DecodeLimits = DecodeLimits { max_pixels: 200_000_000 };

/// An image file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// The file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The content cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The picture cannot be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
}

/// Reads an image file, upright.
pub(crate) fn read_picture(path: &Path) -> Result<RgbImage, PictureError> {
    Ok(decode(&std::fs::read(path)?, &DECODE_LIMITS)?)
}

/// Decodes an image file and resizes it onto the canvas `[canvas_px, canvas_px, 3]`, without keeping its aspect ratio.
/// Returns the size of the image.
pub(super) fn draw(file: &[u8], canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, PictureError> {
    let picture = decode(file, &DECODE_LIMITS)?;
    resize_into(&picture, ImageSize { width: canvas_px, height: canvas_px }, canvas)?;
    Ok(picture.dimensions().into())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::io::Cursor;

    use densecl_vision::image::resize;
    use image::{DynamicImage, ImageBuffer, ImageFormat, Luma, Rgb};

    use super::*;
    use crate::data::{ImageFiles, ImageSource, Reading, Shards, ShuffleOptions};

    /// Four inks, 56 x 40 pixels, by Pillow.
    const CMYK_JPEG: &[u8] = include_bytes!("../../tests/pictures/cmyk.jpg");

    /// An EXIF segment that says: turn by a quarter, clockwise.
    const ORIENTATION_6: &[u8] = &[
        0xFF, 0xE1, 0, 34, b'E', b'x', b'i', b'f', 0, 0, // marker, length, name
        b'M', b'M', 0, 42, 0, 0, 0, 8, // TIFF header
        0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0, // one entry, no further directory
    ];

    fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        picture.into().write_to(&mut file, format).unwrap();
        file.into_inner()
    }

    fn grey_of_16_bits() -> Vec<u8> {
        encoded(ImageBuffer::from_fn(60, 30, |x, y| Luma([(x * 1009 + y * 317) as u16])), ImageFormat::Png)
    }

    fn turned_jpeg() -> Vec<u8> {
        let picture = ImageBuffer::from_fn(50, 30, |x, y| Rgb([(x * 5) as u8, (y * 8) as u8, 90]));
        let mut file = encoded(picture, ImageFormat::Jpeg);
        file.splice(2..2, ORIENTATION_6.iter().copied());
        file
    }

    /// Files whose pixels depend on the decoder, by name, with their upright size.
    pub(crate) fn special_files() -> [(&'static str, Vec<u8>, ImageSize); 3] {
        [
            ("grey-16.png", grey_of_16_bits(), ImageSize { width: 60, height: 30 }),
            ("cmyk.jpg", CMYK_JPEG.to_vec(), ImageSize { width: 56, height: 40 }),
            ("turned.jpg", turned_jpeg(), ImageSize { width: 30, height: 50 }),
        ]
    }

    fn of_the_server(file: &[u8], canvas_px: u32) -> Vec<u8> {
        let picture = decode(file, &DecodeLimits { max_pixels: 50_000_000 }).unwrap();
        resize(&picture, ImageSize { width: canvas_px, height: canvas_px }).unwrap().into_raw()
    }

    #[test]
    fn canvases_have_the_pixels_that_the_server_sees() {
        let folder = tempfile::tempdir().unwrap();
        let mut canvas = vec![0; 24 * 24 * 3];
        for (name, file, size) in special_files() {
            let files = folder.path().join(name).with_extension("");
            fs::create_dir(&files).unwrap();
            fs::write(files.join(name), &file).unwrap();
            let drawn = ImageFiles::in_folder(&files).unwrap().draw(0, 24, &mut canvas).unwrap();
            assert_eq!((drawn, &canvas), (size, &of_the_server(&file, 24)), "{name}");

            let shard = files.join("shard.tar");
            let mut archive = tar::Builder::new(fs::File::create(&shard).unwrap());
            archive.append_path_with_name(files.join(name), name).unwrap();
            archive.finish().unwrap();
            for reading in [Reading::Ahead, Reading::WhenDrawn] {
                let shards = Shards::named(shard.to_str().unwrap()).unwrap();
                let options = ShuffleOptions { seed: 0, buffer: 1, reading };
                canvas.fill(0);
                let drawn = shards.readers(1, options).unwrap()[0].draw(24, &mut canvas).unwrap();
                assert_eq!((drawn.size, &canvas), (size, &of_the_server(&file, 24)), "{name} in a shard");
            }
        }
    }

    /// The canvas of an 8-bit PNG is the plain convolution of its pixels.
    #[test]
    fn pixels_of_ordinary_files_are_kept() {
        let picture = ImageBuffer::from_fn(31, 31, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, (x * y) as u8]));
        for format in [ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP] {
            let mut canvas = vec![0; 31 * 31 * 3];
            draw(&encoded(picture.clone(), format), 31, &mut canvas).unwrap();
            assert_eq!(&canvas, picture.as_raw(), "{format:?}");
        }
    }

    #[test]
    fn more_pixels_than_the_limit_are_refused_by_the_header() {
        let mut png = encoded(ImageBuffer::from_pixel(1, 1, Luma([0_u8])), ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0x40, 0, 0, 0, 0x40, 0]); // 16384 x 16384
        let error = draw(&png, 8, &mut [0; 192]).unwrap_err();
        assert!(matches!(error, PictureError::Decode(DecodeError::TooManyPixels { .. })), "{error}");
    }
}
