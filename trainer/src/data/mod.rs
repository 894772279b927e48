//! Where images come from, and how they reach the training loop.

mod folder;
mod loader;
mod order;
pub mod procedural;

use std::path::PathBuf;

pub use folder::ImageFolder;
pub use loader::{Batch, Loader, LoaderOptions};
pub use order::Order;

use crate::augment::ImageSize;
use procedural::ProceduralImages;

/// Images by number. Implementations are shared between threads.
pub trait ImageSource: Send + Sync {
    /// Number of different images; `None` if they never end.
    fn image_count(&self) -> Option<u64>;

    /// Draws image `index` onto a square canvas, `[canvas_px, canvas_px, 3]` RGB, squeezing it if
    /// it is not square. Returns the size it had.
    ///
    /// # Errors
    /// If the image cannot be read; another will be used in its place.
    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError>;
}

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}")]
pub struct ImageError {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub source: image::ImageError,
}

/// Procedural images, drawn at the size of the canvas.
impl ImageSource for ProceduralImages {
    fn image_count(&self) -> Option<u64> {
        None
    }

    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
        debug_assert_eq!(canvas_px, self.size_px());
        self.render_into(index, canvas);
        Ok(ImageSize { width: canvas_px, height: canvas_px })
    }
}
