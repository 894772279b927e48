//! Sources of images, and the batches that the training loop gets of them.

pub(crate) mod decode;
mod files;
pub(crate) mod list;
mod loader;
mod order;
pub(crate) mod passed_over;
mod shards;
mod skipped;
mod tally;
pub(crate) mod walk;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Error, Result, bail};
use tch::Tensor;

pub use decode::PictureError;
pub use files::ImageFiles;
pub use loader::{Batch, Loader, LoaderOptions};
pub use order::Order;
pub use passed_over::PassedOverReason;
pub use shards::{Drawn, Reading, ShardReader, Shards, ShuffleOptions};
pub(crate) use skipped::Skipped;
pub use skipped::{SkipCounts, SkipReason};
pub use tally::Tally;

use crate::augment::ImageSize;
use densecl_procedural::ProceduralImages;

/// Images by number. Implementations are shared between threads.
pub trait ImageSource: Send + Sync {
    /// Number of different images; `None` if they never end.
    fn image_count(&self) -> Option<u64>;

    /// The file or folder that holds the images; `None` if they are computed.
    fn root(&self) -> Option<&Path> {
        None
    }

    /// Files beside the images that are not used.
    fn passed_over(&self) -> Tally<PassedOverReason> {
        Tally::default()
    }

    /// Draws image `index` onto a square canvas, `[canvas_px, canvas_px, 3]` RGB, without keeping its
    /// aspect ratio. Returns the size of the image.
    ///
    /// # Errors
    /// If the image cannot be read; the caller then uses another one.
    fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError>;
}

/// An image that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {path}")]
pub struct ImageError {
    /// The file.
    pub path: PathBuf,
    /// The error.
    pub source: PictureError,
}

/// Most images that are tried for samples.
const MAX_TRIED: u64 = 1000;

/// All images of a run.
#[derive(Clone)]
pub enum DataSource {
    /// Images with random access.
    Images(Arc<dyn ImageSource>),
    /// Images read as streams.
    Shards(Shards),
}

impl DataSource {
    /// Opens a run's `data.source`, and logs what of it is passed over; `seed` and `canvas_px` are those of procedural
    /// images.
    ///
    /// # Errors
    /// If there is no image; the error names what was searched for.
    pub fn open(source: &str, seed: u64, canvas_px: u32) -> Result<Self> {
        let path = Path::new(source);
        let opened = if source == "synthetic" {
            Self::Images(Arc::new(ProceduralImages::new(seed, canvas_px)))
        } else if shards::is_shards(source) {
            Self::Shards(Shards::named(source)?)
        } else if path.is_dir() {
            Self::Images(Arc::new(ImageFiles::in_folder(path)?))
        } else if !path.exists() {
            bail!("{source} is not there: expected `synthetic`, a folder, a list of images, or tar shards");
        } else if walk::is_image(path) {
            bail!("{source} is a single image: expected `synthetic`, a folder, a list of images, or tar shards");
        } else {
            Self::Images(Arc::new(ImageFiles::listed(path)?))
        };
        passed_over::log(&source, opened.image_count(), &opened.passed_over());
        Ok(opened)
    }

    /// Files beside the images that are not used. Shards are counted when they are first opened.
    pub fn passed_over(&self) -> Tally<PassedOverReason> {
        match self {
            Self::Images(images) => images.passed_over(),
            Self::Shards(shards) => shards.passed_over(),
        }
    }

    /// Reads the first images, always the same ones: at most `count`.
    ///
    /// # Errors
    /// If none can be read.
    pub fn samples(&self, count: usize, canvas_px: u32) -> Result<Batch> {
        let canvas_bytes = (canvas_px * canvas_px * 3) as usize;
        let mut canvas = vec![0; canvas_bytes];
        let (mut pixels, mut sizes) = (Vec::new(), Vec::new());
        let mut unreadable = FirstError::default();
        let mut keep = |size: ImageSize, canvas: &[u8]| {
            pixels.extend_from_slice(canvas);
            sizes.push(size);
            sizes.len() == count
        };
        match self {
            Self::Images(images) => {
                for index in 0..images.image_count().unwrap_or(u64::MAX).min(MAX_TRIED) {
                    let drawn = unreadable.keep(images.draw(index, canvas_px, &mut canvas));
                    if drawn.is_some_and(|size| keep(size, &canvas)) {
                        break;
                    }
                }
            }
            Self::Shards(shards) => {
                let options = ShuffleOptions { seed: 0, buffer: count, reading: Reading::Ahead };
                if let Some(reader) = shards.readers(1, options)?.first_mut() {
                    while !keep(reader.draw(canvas_px, &mut canvas)?.size, &canvas) {}
                }
            }
        }
        if sizes.is_empty() {
            return Err(unreadable.into_error());
        }
        let side = i64::from(canvas_px);
        Ok(Batch { pixels: Tensor::from_slice(&pixels).view([sizes.len() as i64, side, side, 3]), sizes })
    }

    /// Number of different images, if it is known and finite.
    pub fn image_count(&self) -> Option<u64> {
        match self {
            Self::Images(images) => images.image_count(),
            Self::Shards(_) => None,
        }
    }
}

/// The first image that cannot be read, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct FirstError {
    count: u64,
    first: Option<ImageError>,
}

impl FirstError {
    /// The size of an image that was read; counts the others.
    pub(crate) fn keep(&mut self, drawn: Result<ImageSize, ImageError>) -> Option<ImageSize> {
        drawn
            .map_err(|error| {
                self.count += 1;
                self.first.get_or_insert(error);
            })
            .ok()
    }

    /// The error when none could be read: it names the first image and its cause.
    pub(crate) fn into_error(self) -> Error {
        let text = format!("none of {} images can be read; the first", self.count);
        match self.first {
            Some(ImageError { path, source }) => Error::new(source).context(format!("{text} is {}", path.display())),
            None => Error::msg("there are no images"),
        }
    }
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
