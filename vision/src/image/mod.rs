//! Pictures in and out: bytes to RGB pixels, the size a model sees, resizing, PNG.
//!
//! Not here: anything about features or HTTP. Everything is synchronous and keeps no state. Invariant: after
//! [`decode()`] a picture is 8-bit RGB with its EXIF orientation applied, so nobody downstream asks about modes.

mod decode;
mod label_picture;
mod png;
mod resize;

pub use self::decode::{DecodeError, DecodeLimits, Header, decode, is_picture, probe};
pub use self::label_picture::{LabelEncodingError, LabelError, LabelPicture, LabelStyle, encode_labels};
pub use self::png::{PngError, encode_png};
pub use self::resize::{ResizeError, resize};
/// An 8-bit RGB picture, row by row, `[H, W, 3]`.
pub use ::image::RgbImage;
pub use densecl_models::geometry::ImageSize;

/// The picture mirrored left to right.
pub fn mirrored(picture: &RgbImage) -> RgbImage {
    ::image::imageops::flip_horizontal(picture)
}
