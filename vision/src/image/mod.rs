//! Pictures: from bytes to RGB pixels, resizing, PNG and label pictures.
//!
//! Not here: features, HTTP, files and folders. Everything is synchronous and keeps no state. Invariant: after
//! [`decode()`] a picture is 8-bit RGB and upright, so that no caller handles colour modes.

mod decode;
mod extensions;
mod ignored_names;
mod label_picture;
mod png;
mod resize;

pub use self::decode::{
    DecodeError, DecodeLimits, DecodeResizedError, ForeignContent, ForeignKind, PictureHeader, ResizedPicture, decode,
    decode_resized, decode_uncaught, is_picture, probe,
};
pub use self::extensions::{PICTURE_EXTENSIONS, is_picture_extension};
pub use self::ignored_names::is_ignored_name;
pub use self::label_picture::{LabelEncodingError, LabelError, LabelPicture, LabelStyle, encode_labels};
pub use self::png::{PngError, encode_png};
pub use self::resize::{PixelRectangle, ResizeError, resize, resize_into, resize_rectangle};
/// An 8-bit RGB picture, row by row, `[H, W, 3]`.
pub use ::image::RgbImage;
pub use densecl_models::geometry::ImageSize;

/// The picture mirrored left to right.
pub fn mirrored(picture: &RgbImage) -> RgbImage {
    ::image::imageops::flip_horizontal(picture)
}
