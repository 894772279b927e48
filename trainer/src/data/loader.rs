//! Prepares batches ahead of the training loop, in threads of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use tch::{Device, Tensor};

use super::{DataSource, FirstError, ImageSource, Order, Reading, ShardReader, ShuffleOptions, SkipCounts, Skipped};
use crate::augment::ImageSize;
use crate::distributed::ProcessRank;

/// Images of one step, or the share of one process.
#[derive(Debug)]
pub struct Batch {
    /// RGB canvases `[N, S, S, 3]`, uint8 in host memory, page-locked if they go to a GPU.
    pub pixels: Tensor,
    /// Size of each image before it was resized to its canvas.
    pub sizes: Vec<ImageSize>,
}

/// Options of a [`Loader`].
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// Seed of the order.
    pub seed: u64,
    /// Images in a batch, over all processes.
    pub batch: usize,
    /// The process whose share of every batch is drawn.
    pub process: ProcessRank,
    /// Side of the canvases.
    pub canvas_px: u32,
    /// Batches in an epoch.
    pub steps_per_epoch: u64,
    /// Threads.
    pub workers: usize,
    /// Most batches that wait ready.
    pub prefetch: usize,
    /// Number of shards that are read in parallel.
    pub shard_readers: usize,
    /// Number of images in the shuffle buffer of each shard reader.
    pub shuffle_buffer: usize,
    /// Device on which the batches are used.
    pub device: Device,
}

impl LoaderOptions {
    /// Number of images of a batch that this process draws.
    fn share(&self) -> usize {
        self.batch / self.process.size
    }

    /// Their indices in the batch.
    fn indices(&self) -> Range<usize> {
        self.process.rank * self.share()..(self.process.rank + 1) * self.share()
    }
}

/// Batches of steps `first`, `first + 1`, … in order.
///
/// Its thread ends before the loader is dropped: libtorch must not be in use when a process ends.
#[derive(Debug)]
pub struct Loader {
    /// `None` once the thread is to end.
    batches: Option<Receiver<Result<Batch>>>,
    thread: Option<JoinHandle<()>>,
    skipped: Arc<Skipped>,
    waited: Duration,
}

impl Loader {
    /// Starts the threads. Dropping the loader waits for the batch that is being drawn.
    ///
    /// # Errors
    /// If shards hold no image, or threads cannot be started.
    pub fn start(source: DataSource, options: LoaderOptions, first: u64) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.workers)
            .thread_name(|i| format!("data-{i}"))
            .build()
            .context("cannot start the data threads")?;
        let skipped = Arc::new(Skipped::default());
        let reader = BatchReader::new(source, &options, first, Arc::clone(&skipped))?;
        let (sender, batches) = sync_channel(options.prefetch);
        let draw_ahead = move || pool.install(|| draw_ahead(reader, options, first, &sender));
        let thread = thread::Builder::new().name("data".to_owned()).spawn(draw_ahead);
        let thread = Some(thread.context("cannot start the data thread")?);
        Ok(Self { batches: Some(batches), thread, skipped, waited: Duration::ZERO })
    }

    /// The next batch; waits for it if it is not ready.
    ///
    /// # Errors
    /// If not one image of it could be read.
    pub fn next_batch(&mut self) -> Result<Batch> {
        let started = Instant::now();
        let batch = self.batches.as_ref().and_then(|batches| batches.recv().ok());
        let batch = batch.context("the data threads have stopped")?;
        self.waited += started.elapsed();
        batch
    }

    /// Time spent waiting for batches since the last call.
    pub fn take_waited(&mut self) -> Duration {
        std::mem::take(&mut self.waited)
    }

    /// Number of images that could not be read so far, by reason; each counts once, however often it was drawn.
    pub fn skipped(&self) -> SkipCounts {
        self.skipped.counts()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The thread ends when it cannot send the next batch.
        self.batches = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the data thread has panicked");
        }
    }
}

fn draw_ahead(mut reader: BatchReader, options: LoaderOptions, first: u64, sender: &SyncSender<Result<Batch>>) {
    let side = i64::from(options.canvas_px);
    let mut pixels = vec![0; options.share() * (options.canvas_px * options.canvas_px * 3) as usize];
    for step in first.. {
        let batch = reader.draw(step, &options, &mut pixels).map(|sizes| {
            let pixels = Tensor::from_slice(&pixels).view([sizes.len() as i64, side, side, 3]);
            let pixels = if options.device.is_cuda() { pixels.pin_memory(options.device) } else { pixels };
            Batch { pixels, sizes }
        });
        let failed = batch.is_err();
        if sender.send(batch).is_err() || failed {
            return;
        }
    }
}

/// Draws the images of a step.
struct BatchReader {
    images: Images,
    skipped: Arc<Skipped>,
}

enum Images {
    ByNumber { source: Arc<dyn ImageSource>, order: Order },
    Streams(Vec<ShardReader>),
}

impl BatchReader {
    fn new(source: DataSource, options: &LoaderOptions, first: u64, skipped: Arc<Skipped>) -> Result<Self> {
        let images = match source {
            DataSource::Images(source) => {
                let order = Order::new(options.seed, source.image_count());
                Images::ByNumber { source, order }
            }
            DataSource::Shards(shards) => {
                let reading = if options.process.size == 1 { Reading::Ahead } else { Reading::WhenDrawn };
                let shuffle = ShuffleOptions { seed: options.seed, buffer: options.shuffle_buffer, reading };
                let mut readers = shards.readers(options.shard_readers, shuffle)?;
                let (drawn, count) = (first * options.batch as u64, readers.len() as u64);
                // Image i of the run is drawn by reader i modulo their number.
                (0..).zip(&mut readers).for_each(|(i, reader)| reader.skip((drawn + count - 1 - i) / count));
                Images::Streams(readers)
            }
        };
        Ok(Self { images, skipped })
    }

    /// Draws the share of batch `step`, which follows the one before; returns the images' sizes.
    fn draw(&mut self, step: u64, options: &LoaderOptions, pixels: &mut [u8]) -> Result<Vec<ImageSize>> {
        let canvas_px = options.canvas_px;
        let canvas_bytes = (canvas_px * canvas_px * 3) as usize;
        match &mut self.images {
            Images::ByNumber { source, order } => {
                let indices = order.batch(step, options.steps_per_epoch, options.batch);
                let draw = |(canvas, &index)| draw_or_replace(&**source, index, canvas_px, canvas, &self.skipped);
                pixels.par_chunks_mut(canvas_bytes).zip(&indices[options.indices()]).map(draw).collect()
            }
            Images::Streams(readers) => {
                let first = (step * options.batch as u64 % readers.len() as u64) as usize;
                let count = readers.len();
                // Image j of the batch belongs to reader (first + j) modulo their number, which skips the
                // images of other processes.
                let mut shares: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
                let mut canvases = pixels.chunks_mut(canvas_bytes);
                for j in 0..options.batch {
                    let canvas = if options.indices().contains(&j) { canvases.next() } else { None };
                    shares[(first + j) % count].push((j, canvas));
                }
                let drawn = readers.par_iter_mut().zip(shares).map(|(reader, share)| {
                    let mut draw = |(j, canvas): (usize, Option<&mut [u8]>)| {
                        let Some(canvas) = canvas else {
                            reader.skip_one();
                            return Ok(None);
                        };
                        Ok(Some((j, draw_counted(reader, canvas_px, canvas, &self.skipped)?)))
                    };
                    share.into_iter().filter_map(|image| draw(image).transpose()).collect::<Result<Vec<_>>>()
                });
                let mut sizes: Vec<_> = drawn.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
                sizes.sort_unstable_by_key(|(j, _)| *j);
                Ok(sizes.into_iter().map(|(_, size)| size).collect())
            }
        }
    }
}

fn draw_counted(reader: &mut ShardReader, canvas_px: u32, canvas: &mut [u8], skipped: &Skipped) -> Result<ImageSize> {
    let drawn = reader.draw(canvas_px, canvas)?;
    drawn.unreadable.iter().for_each(|(image, cause)| skipped.note(image, cause));
    Ok(drawn.size)
}

/// Most images that are tried in place of an unreadable one.
const MAX_REPLACEMENTS: u64 = 100;

fn draw_or_replace(
    source: &dyn ImageSource,
    index: u64,
    canvas_px: u32,
    canvas: &mut [u8],
    skipped: &Skipped,
) -> Result<ImageSize> {
    let len = source.image_count().unwrap_or(u64::MAX);
    let mut unreadable = FirstError::default();
    for offset in 0..MAX_REPLACEMENTS.min(len) {
        let drawn = source.draw((index + offset) % len, canvas_px, canvas);
        if let Err(error) = &drawn {
            if let Some(root) = source.root() {
                ensure!(root.exists(), "the data are gone: {} is no longer there", root.display());
            }
            skipped.note(&error.path.display(), &error.source);
        }
        if let Some(size) = unreadable.keep(drawn) {
            return Ok(size);
        }
    }
    Err(unreadable.into_error().context("the images could not be read"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{ImageError, ImageFiles};

    /// Image i is a canvas of value i; image 3 is broken.
    struct Numbers;

    impl ImageSource for Numbers {
        fn image_count(&self) -> Option<u64> {
            Some(8)
        }

        fn draw(&self, index: u64, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, ImageError> {
            if index == 3 {
                let source = std::io::Error::other("broken").into();
                return Err(ImageError { path: "3".into(), source });
            }
            canvas.fill(index as u8);
            Ok(ImageSize { width: canvas_px, height: canvas_px })
        }
    }

    fn pixels(batch: &Batch) -> Vec<u8> {
        Vec::try_from(batch.pixels.flatten(0, -1)).unwrap()
    }

    fn options() -> LoaderOptions {
        LoaderOptions {
            seed: 1,
            batch: 4,
            process: ProcessRank { rank: 0, size: 1 },
            canvas_px: 2,
            steps_per_epoch: 2,
            workers: 2,
            prefetch: 1,
            shard_readers: 3,
            shuffle_buffer: 5,
            device: Device::Cpu,
        }
    }

    #[test]
    fn batches_come_in_order_from_any_step() {
        let draw = |first: u64, count: u64| {
            let mut loader = Loader::start(DataSource::Images(Arc::new(Numbers)), options(), first).unwrap();
            (0..count).map(|_| pixels(&loader.next_batch().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(draw(0, 6)[3..], draw(3, 3));
    }

    /// The batches of several processes, with their shares concatenated.
    fn batches_of_all(source: &DataSource, size: usize, first: u64, count: u64) -> Vec<Vec<u8>> {
        let all_options = (0..size).map(|rank| LoaderOptions { process: ProcessRank { rank, size }, ..options() });
        let mut loaders: Vec<_> =
            all_options.map(|options| Loader::start(source.clone(), options, first).unwrap()).collect();
        let mut batch = || loaders.iter_mut().flat_map(|loader| pixels(&loader.next_batch().unwrap())).collect();
        (0..count).map(|_| batch()).collect()
    }

    #[test]
    fn shares_of_several_processes_make_up_the_batch() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        let shards = DataSource::open(&folder.path().display().to_string(), 0, 2).unwrap();
        for source in [DataSource::Images(Arc::new(Numbers)), shards] {
            let whole = batches_of_all(&source, 1, 0, 20);
            for size in [2, 4] {
                assert_eq!(batches_of_all(&source, size, 0, 20), whole, "{size} processes");
                assert_eq!(batches_of_all(&source, size, 13, 7), whole[13..], "{size} processes, from the middle");
            }
        }
    }

    #[test]
    fn a_dropped_loader_draws_nothing() {
        let source = Arc::new(Numbers);
        let images = Arc::clone(&source);
        let mut loader = Loader::start(DataSource::Images(images), options(), 0).unwrap();
        loader.next_batch().unwrap();
        drop(loader);
        assert_eq!(Arc::strong_count(&source), 1);
    }

    #[test]
    fn a_broken_image_is_replaced_and_counted() {
        let mut loader = Loader::start(DataSource::Images(Arc::new(Numbers)), options(), 0).unwrap();
        let seen: Vec<u8> = (0..2).flat_map(|_| pixels(&loader.next_batch().unwrap())).collect();
        assert!(!seen.contains(&3));
        for _ in 0..4 {
            loader.next_batch().unwrap();
        }
        // It was drawn in every epoch, and is one image.
        assert_eq!((loader.skipped().unreadable, loader.skipped().total()), (1, 1));
    }

    #[test]
    fn nothing_readable_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("a.png"), b"no").unwrap();
        let source = Arc::new(ImageFiles::in_folder(root.path()).unwrap());
        let mut loader = Loader::start(DataSource::Images(source), options(), 0).unwrap();
        let message = format!("{:#}", loader.next_batch().unwrap_err());
        assert!(message.contains("could not be read") && message.contains("a.png: "), "{message}");
        let source = Arc::new(ImageFiles::in_folder(root.path()).unwrap());
        let folder = root.path().to_owned();
        drop(root);
        let mut loader = Loader::start(DataSource::Images(source), options(), 0).unwrap();
        let message = loader.next_batch().unwrap_err().to_string();
        assert!(message.contains("gone") && message.contains(&folder.display().to_string()), "{message}");
    }

    /// Image i of the shards is a grey of level i.
    fn write_shards(folder: &std::path::Path) {
        for shard in 0..4_u8 {
            let file = std::fs::File::create(folder.join(format!("s-{shard}.tar"))).unwrap();
            let mut archive = tar::Builder::new(file);
            for level in shard * 7..shard * 7 + 7 {
                let mut png = std::io::Cursor::new(Vec::new());
                let image = image::RgbImage::from_pixel(2, 2, image::Rgb([level; 3]));
                image.write_to(&mut png, image::ImageFormat::Png).unwrap();
                let bytes = png.into_inner();
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, format!("{level}.png"), &bytes[..]).unwrap();
            }
            archive.finish().unwrap();
        }
    }

    #[test]
    fn shards_come_in_the_same_order_from_any_step_whatever_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        write_shards(folder.path());
        let draw = |first: u64, workers: usize| {
            let source = DataSource::open(&folder.path().display().to_string(), 0, 2).unwrap();
            let mut loader = Loader::start(source, LoaderOptions { workers, ..options() }, first).unwrap();
            (first..20).map(|_| pixels(&loader.next_batch().unwrap())).collect::<Vec<_>>()
        };
        let whole = draw(0, 2);
        for first in [1, 2, 7, 8, 13] {
            assert_eq!(draw(first, 1), whole[first as usize..], "from {first}");
        }
        let mut seen: Vec<u8> = whole.iter().flatten().copied().collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, (0..28).collect::<Vec<_>>());
    }
}
