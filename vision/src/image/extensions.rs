//! File name extensions of pictures.

/// Extensions of files that are taken for pictures in a folder, in small letters and without the dot.
///
/// GIF is not among them, although [`decode`](super::decode()) reads it: data sets have no GIF pictures.
pub const PICTURE_EXTENSIONS: [&str; 7] = ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff"];

/// Returns whether `extension` is one of [`PICTURE_EXTENSIONS`], in capitals or not.
pub fn is_picture_extension(extension: &str) -> bool {
    PICTURE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capitals_do_not_matter_and_the_dot_does() {
        assert!(["jpg", "JPG", "Tiff", "webp"].into_iter().all(is_picture_extension));
        assert!(!["", ".jpg", "gif", "jpg2", "txt"].into_iter().any(is_picture_extension));
    }
}
