//! Draws batches ahead of the training loop, on threads of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rayon::prelude::*;

use super::{ImageSource, Order};
use crate::augment::ImageSize;

/// Images of one step.
#[derive(Debug)]
pub struct Batch {
    /// RGB canvases `[N, S, S, 3]`.
    pub pixels: Vec<u8>,
    /// Size of each image before it was squeezed onto its canvas.
    pub sizes: Vec<ImageSize>,
}

/// How batches are drawn.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// Seed of the order.
    pub seed: u64,
    /// Images in a batch.
    pub batch: usize,
    /// Side of the canvases.
    pub canvas_px: u32,
    /// Batches in an epoch.
    pub steps_per_epoch: u64,
    /// Threads.
    pub workers: usize,
    /// Batches that may wait ready.
    pub prefetch: usize,
}

/// Batches of steps `first`, `first + 1`, … in order.
#[derive(Debug)]
pub struct Loader {
    batches: Receiver<Result<Batch>>,
    skipped: Arc<AtomicU64>,
    waited: Duration,
}

impl Loader {
    /// Starts drawing; stops by itself when the loader is dropped.
    ///
    /// # Errors
    /// If threads cannot be started.
    pub fn start(source: Arc<dyn ImageSource>, options: LoaderOptions, first: u64) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.workers)
            .thread_name(|i| format!("data-{i}"))
            .build()
            .context("cannot start the data threads")?;
        let (sender, batches) = sync_channel(options.prefetch);
        let skipped = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&skipped);
        let draw_ahead = move || {
            let mut order = Order::new(options.seed, source.image_count());
            for step in first.. {
                let indices = order.batch(step, options.steps_per_epoch, options.batch);
                let batch = pool.install(|| draw_batch(&*source, &indices, options.canvas_px, &counter));
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        thread::Builder::new().name("data".to_owned()).spawn(draw_ahead).context("cannot start the data thread")?;
        Ok(Self { batches, skipped, waited: Duration::ZERO })
    }

    /// The next batch; waits for it if it is not ready.
    ///
    /// # Errors
    /// If not one image of it could be read.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let started = Instant::now();
        let batch = self.batches.recv().context("the data threads have stopped")?;
        self.waited += started.elapsed();
        batch
    }

    /// Time spent waiting for batches since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Images passed over so far because they could not be read.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }
}

/// Images that follow an unreadable one are tried in its place, this many at most.
const REPLACEMENTS: u64 = 100;

fn draw_batch(source: &dyn ImageSource, indices: &[u64], canvas_px: u32, skipped: &AtomicU64) -> Result<Batch> {
    let canvas_bytes = (canvas_px * canvas_px * 3) as usize;
    let mut pixels = vec![0; indices.len() * canvas_bytes];
    let sizes = pixels
        .par_chunks_mut(canvas_bytes)
        .zip(indices)
        .map(|(canvas, &index)| draw_or_replace(source, index, canvas_px, canvas, skipped))
        .collect::<Result<_>>()?;
    Ok(Batch { pixels, sizes })
}

fn draw_or_replace(
    source: &dyn ImageSource,
    index: u64,
    canvas_px: u32,
    canvas: &mut [u8],
    skipped: &AtomicU64,
) -> Result<ImageSize> {
    let len = source.image_count().unwrap_or(u64::MAX);
    for offset in 0..REPLACEMENTS.min(len) {
        match source.draw((index + offset) % len, canvas_px, canvas) {
            Ok(size) => return Ok(size),
            Err(error) => {
                skipped.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(path = %error.path.display(), cause = %error.source, "image skipped");
            }
        }
    }
    bail!("{} images in a row could not be read", REPLACEMENTS.min(len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageError, ImageFolder};

    /// Image i is a canvas of value i; image 3 is broken.
    struct Numbers;

    impl ImageSource for Numbers {
        fn image_count(&self) -> Option<u64> {
            Some(8)
        }

        fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
            if index == 3 {
                let source = image::ImageError::IoError(std::io::Error::other("broken"));
                return Err(ImageError { path: "3".into(), source });
            }
            canvas.fill(index as u8);
            Ok(ImageSize { width: canvas_px, height: canvas_px })
        }
    }

    fn options() -> LoaderOptions {
        LoaderOptions { seed: 1, batch: 4, canvas_px: 2, steps_per_epoch: 2, workers: 2, prefetch: 1 }
    }

    #[test]
    fn batches_come_in_order_from_any_step() {
        let draw = |first: u64, count: u64| {
            let mut loader = Loader::start(Arc::new(Numbers), options(), first).unwrap();
            (0..count).map(|_| loader.next_batch().unwrap().pixels).collect::<Vec<_>>()
        };
        assert_eq!(draw(0, 6)[3..], draw(3, 3));
    }

    #[test]
    fn a_broken_image_is_replaced_and_counted() {
        let mut loader = Loader::start(Arc::new(Numbers), options(), 0).unwrap();
        let seen: Vec<u8> = (0..2).flat_map(|_| loader.next_batch().unwrap().pixels).collect();
        assert!(!seen.contains(&3));
        assert!(loader.skipped() >= 1);
    }

    #[test]
    fn nothing_readable_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.png"), b"no").unwrap();
        let source = Arc::new(ImageFolder::open(root.path()).unwrap());
        let mut loader = Loader::start(source, options(), 0).unwrap();
        assert!(loader.next_batch().unwrap_err().to_string().contains("could not be read"));
    }
}
