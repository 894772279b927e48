//! Tar shards in the format of `WebDataset`, read as streams and shuffled through a buffer.
//!
//! A sample is the members of a shard that share a name up to the first dot; its image is the member
//! with an image's extension after that dot (`0001.jpg`, beside `0001.json`). Members that are passed over
//! although their last ending is an image's are counted. Each reader has its own shards. In every pass it reads them in another order, each from front to back, and draws at random
//! from a buffer that the stream keeps full.
//!
//! Invariant: the `n`-th image of reader `r` is a function of the seed, the shards, `r`, `n` and the
//! size of the buffer, so a run can be resumed at any step; skipping to it reads only headers.

mod member;
mod names;
mod reader;
mod shard_tally;

use std::path::PathBuf;
use std::sync::Arc;

use names::ShardNameError;
pub(super) use names::is_shards;
pub use reader::{Drawn, ShardReader};
use shard_tally::ShardTally;

use densecl_vision::image::PICTURE_EXTENSIONS;

use super::Tally;
use super::passed_over::PassedOverReason;

/// The shards of a data set.
#[derive(Clone, Debug)]
pub struct Shards {
    paths: Vec<PathBuf>,
    tally: Arc<ShardTally>,
}

/// Shards without usable images.
#[derive(Debug, thiserror::Error)]
pub enum ShardError {
    /// The name matches no shard.
    #[error(transparent)]
    Name(#[from] ShardNameError),
    /// None of the shards holds an image.
    #[error(
        "no image in {count} tar shards, the first being {first}; looked for members ending in {}{}",
        PICTURE_EXTENSIONS.join(", "),
        if passed_over.is_empty() { String::new() } else { format!("; passed over: {passed_over}") }
    )]
    Empty {
        /// Number of shards.
        count: usize,
        /// One of them.
        first: PathBuf,
        /// Content that they hold instead.
        passed_over: Tally<PassedOverReason>,
    },
    /// None of the images in the buffer can be read.
    #[error("{tried} images in a row could not be read, the first being {first}")]
    Unreadable {
        /// Number of images that were tried.
        tried: usize,
        /// The first of them, and why it cannot be read.
        first: String,
    },
}

impl Shards {
    /// Finds the shards of `name`: a `.tar` file, a folder of them, or a name with ranges such as
    /// `train-{0000..0146}.tar`.
    ///
    /// # Errors
    /// If there are none, or one is missing.
    pub fn named(name: &str) -> Result<Self, ShardError> {
        let names::ShardPaths { paths, beside } = names::expand(name)?;
        let tally = ShardTally::default();
        tally.note(&beside);
        Ok(Self { paths, tally: Arc::new(tally) })
    }

    /// Counts of members passed over in the shards opened so far, and of files beside them.
    pub fn passed_over(&self) -> Tally<PassedOverReason> {
        self.tally.total()
    }

    /// Splits the shards between `readers` readers, or fewer if there are fewer shards.
    ///
    /// # Errors
    /// If there is no image.
    pub fn readers(&self, readers: usize, options: ShuffleOptions) -> Result<Vec<ShardReader>, ShardError> {
        let count = readers.min(self.paths.len()).max(1);
        let reader = |reader: usize| {
            let shards = self.paths.iter().skip(reader).step_by(count).cloned().collect();
            ShardReader::new(shards, Arc::clone(&self.tally), reader as u64, options)
        };
        let mut readers: Vec<_> = (0..count).map(reader).collect();
        // A reader without an image has nothing to draw when it is its turn.
        readers.retain(ShardReader::has_images);
        if readers.is_empty() {
            let first = self.paths.first().cloned().unwrap_or_default();
            return Err(ShardError::Empty { count: self.paths.len(), first, passed_over: self.passed_over() });
        }
        Ok(readers)
    }
}

/// Options of the shuffle.
#[derive(Clone, Copy, Debug)]
pub struct ShuffleOptions {
    /// Seed of the order.
    pub seed: u64,
    /// Number of images in a reader's buffer.
    pub buffer: usize,
    /// Time at which their bytes are read.
    pub reading: Reading,
}

/// Time at which the bytes of an image are read from its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Read when the image enters the buffer: a shard is read from front to back.
    Ahead,
    /// Read when the image is drawn: for processes that each draw only some of the images.
    WhenDrawn,
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io;
    use std::path::Path;

    use super::member::index;
    use super::*;

    const OPTIONS: ShuffleOptions = ShuffleOptions { seed: 3, buffer: 5, reading: Reading::Ahead };

    /// `count` shards of 8 samples; image i is a grey of level i.
    fn write_shards(folder: &Path, count: usize) -> String {
        for shard in 0..count {
            let mut archive = tar::Builder::new(File::create(folder.join(format!("s-{shard:02}.tar"))).unwrap());
            let mut append = |name: String, bytes: &[u8]| {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                archive.append_data(&mut header, name, bytes).unwrap();
            };
            for sample in 0..8 {
                let level = (shard * 8 + sample) as u8;
                let mut png = io::Cursor::new(Vec::new());
                image::RgbImage::from_pixel(4, 4, image::Rgb([level; 3]))
                    .write_to(&mut png, image::ImageFormat::Png)
                    .unwrap();
                append(format!("a/{level:04}.json"), b"{}");
                append(format!("a/{level:04}.png"), &png.into_inner());
                append(format!("a/{level:04}.seg.png"), b"a label map, no image");
            }
            archive.finish().unwrap();
        }
        folder.join(format!("s-{{00..{:02}}}.tar", count - 1)).display().to_string()
    }

    fn levels(reader: &mut ShardReader, count: usize) -> Vec<u8> {
        let mut canvas = vec![0; 4 * 4 * 3];
        let mut level = || {
            reader.draw(4, &mut canvas).unwrap();
            canvas[0]
        };
        (0..count).map(|_| level()).collect()
    }

    #[test]
    fn a_pass_draws_every_image_once_and_the_next_in_another_order() {
        let folder = tempfile::tempdir().unwrap();
        let shards = Shards::named(&write_shards(folder.path(), 3)).unwrap();
        let mut reader = shards.readers(1, OPTIONS).unwrap().remove(0);
        let (first, second) = (levels(&mut reader, 24), levels(&mut reader, 24));
        for pass in [&first, &second] {
            let mut sorted = pass.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..24).collect::<Vec<_>>());
        }
        assert_ne!(first, second);
        assert_ne!(first, (0..24).collect::<Vec<_>>());
    }

    #[test]
    fn any_position_can_be_jumped_to() {
        let folder = tempfile::tempdir().unwrap();
        let shards = Shards::named(&write_shards(folder.path(), 3)).unwrap();
        let reader = || shards.readers(1, OPTIONS).unwrap().remove(0);
        let whole = levels(&mut reader(), 80);
        for position in [1, 7, 23, 24, 25, 60] {
            let mut late = reader();
            late.skip(position as u64);
            assert_eq!(levels(&mut late, 80 - position), whole[position..], "from {position}");
        }
    }

    #[test]
    fn readers_split_the_images() {
        let folder = tempfile::tempdir().unwrap();
        let shards = Shards::named(&write_shards(folder.path(), 5)).unwrap();
        let mut readers = shards.readers(3, OPTIONS).unwrap();
        assert_eq!(readers.len(), 3);
        let mut seen = Vec::new();
        for reader in &mut readers {
            let count = reader.images_in_pass() as usize;
            seen.extend(levels(reader, count));
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn a_broken_image_is_replaced_without_shifting_the_order_and_a_cut_shard_read_as_far_as_it_goes() {
        let folder = tempfile::tempdir().unwrap();
        let name = write_shards(folder.path(), 1);
        let shards = Shards::named(&name).unwrap();
        let reader = || shards.readers(1, OPTIONS).unwrap().remove(0);
        let whole = levels(&mut reader(), 8);
        let path = folder.path().join("s-00.tar");
        let bytes = std::fs::read(&path).unwrap();
        let mut broken = bytes.clone();
        let at = index(&path).0[2].offset as usize;
        broken[at..at + 8].fill(0);
        std::fs::write(&path, &broken).unwrap();
        let mut broken = reader();
        let mut canvas = vec![0; 4 * 4 * 3];
        let mut names = Vec::new();
        for level in whole {
            let drawn = broken.draw(4, &mut canvas).unwrap();
            assert_eq!(canvas[0] == level, drawn.unreadable.is_empty(), "only the broken one is another");
            names.extend(drawn.unreadable.into_iter().map(|(name, _)| name));
        }
        assert_eq!(names, [format!("{}/a/0002.png", path.display())]);

        std::fs::write(&path, &bytes[..at + 20]).unwrap();
        assert_eq!(index(&path).0.len(), 3);
        std::fs::write(&path, b"no tar").unwrap();
        assert!(shards.readers(1, OPTIONS).unwrap_err().to_string().contains("no image in 1 tar shards"));
    }

    /// Writes a shard of members of one byte.
    fn write_members(path: &Path, names: &[&str]) {
        let mut archive = tar::Builder::new(File::create(path).unwrap());
        for name in names {
            let mut header = tar::Header::new_gnu();
            header.set_size(1);
            archive.append_data(&mut header, name, &b"x"[..]).unwrap();
        }
        archive.finish().unwrap();
    }

    #[test]
    fn what_is_passed_over_is_counted_once_however_often_a_shard_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.tar");
        write_members(&path, &["a.b.jpg", "img.0001.jpg"]);
        let open = || Shards::named(path.to_str().unwrap()).unwrap();
        let message = open().readers(1, OPTIONS).unwrap_err().to_string();
        assert!(message.contains("s.tar/a.b.jpg, …") && message.contains("first dot): 2"), "{message}");

        write_members(&path, &["1.jpg", "22.01.jpg", "22.02.jpg", "1.seg.png"]);
        let shards = open();
        let mut reader = shards.readers(1, OPTIONS).unwrap().remove(0);
        reader.skip(3);
        let passed_over = shards.passed_over();
        assert_eq!(passed_over.count(PassedOverReason::DottedName), 2);
        assert_eq!(passed_over.count(PassedOverReason::OtherPart), 1);
        let message = reader.draw(4, &mut [0; 48]).unwrap_err().to_string();
        assert!(message.contains("the first being ") && message.contains("s.tar/1.jpg: "), "{message}");
    }
}
