//! Failures of the page.

use densecl_vision::image::ResizeError;

use crate::dataset::DatasetError;

/// The reason why a page could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// An image could not be read again.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// An image could not be resized.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// An image could not be encoded.
    #[error("a picture of the page could not be written")]
    Jpeg(#[from] ::image::ImageError),
}
