//! One stream of images: its own shards in random order, shuffled through a buffer.

use std::path::PathBuf;
use std::sync::Arc;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::member::Member;
use super::shard_tally::ShardTally;
use super::{Reading, ShardError, ShuffleOptions};
use crate::augment::ImageSize;
use crate::data::{PictureError, decode};

/// Most images of the buffer that are tried in place of an unreadable one.
const MAX_REPLACEMENTS: usize = 100;

/// A member in the shuffle buffer, with its bytes if they were read ahead.
#[derive(Debug)]
struct BufferedMember {
    member: Member,
    bytes: Option<Vec<u8>>,
}

/// One stream of images.
#[derive(Debug)]
pub struct ShardReader {
    shards: Vec<PathBuf>,
    tally: Arc<ShardTally>,
    number: u64,
    options: ShuffleOptions,
    pass: u64,
    rng: ChaCha8Rng,
    /// Shards of this pass that have not been opened, the next one last.
    to_open: Vec<PathBuf>,
    /// Members of the open shard that have not entered the buffer, the next one last.
    to_enter: Vec<Member>,
    buffer: Vec<BufferedMember>,
    skipping: bool,
}

/// The result of drawing an image.
#[derive(Debug)]
pub struct Drawn {
    /// Size of the image.
    pub size: ImageSize,
    /// Images that could not be read, with the errors.
    pub unreadable: Vec<(String, PictureError)>,
}

impl ShardReader {
    pub(super) fn new(shards: Vec<PathBuf>, tally: Arc<ShardTally>, number: u64, options: ShuffleOptions) -> Self {
        let mut reader = Self {
            shards,
            tally,
            number,
            options,
            pass: 0,
            rng: ChaCha8Rng::seed_from_u64(options.seed),
            to_open: Vec::new(),
            to_enter: Vec::new(),
            buffer: Vec::new(),
            skipping: false,
        };
        reader.begin(0);
        reader
    }

    fn begin(&mut self, pass: u64) {
        self.pass = pass;
        self.rng = ChaCha8Rng::seed_from_u64(self.options.seed);
        // Passes and readers never share a stream: readers are far fewer than 2³².
        self.rng.set_stream(self.number << 32 | pass);
        self.to_open.clone_from(&self.shards);
        self.to_open.shuffle(&mut self.rng);
        self.to_enter.clear();
        self.buffer.clear();
    }

    /// Returns whether there is an image; reads headers until it finds one.
    pub(super) fn has_images(&self) -> bool {
        self.shards.iter().any(|shard| !self.tally.index(shard).is_empty())
    }

    /// Number of images in a pass; reads the headers of all its shards.
    pub(super) fn images_in_pass(&self) -> u64 {
        self.shards.iter().map(|shard| self.tally.index(shard).len() as u64).sum()
    }

    /// Skips the next `images`, reading headers only.
    pub fn skip(&mut self, mut images: u64) {
        if images == 0 {
            return;
        }
        let in_pass = self.images_in_pass();
        if in_pass == 0 {
            return;
        }
        self.begin(images / in_pass);
        images %= in_pass;
        self.skipping = true;
        for _ in 0..images {
            self.skip_one();
        }
        self.skipping = false;
    }

    /// Skips the next image, which another process draws.
    pub fn skip_one(&mut self) {
        self.take();
    }

    /// Draws the next image onto `canvas`, or another one of the buffer if it cannot be read.
    ///
    /// # Errors
    /// If none of a buffer full of images can be read.
    pub fn draw(&mut self, canvas_px: u32, canvas: &mut [u8]) -> Result<Drawn, ShardError> {
        let mut unreadable = Vec::new();
        let mut attempt = |waiting: &BufferedMember| match waiting.draw(canvas_px, canvas) {
            Ok(size) => Some(size),
            Err(error) => {
                unreadable.push((waiting.member.to_string(), error));
                None
            }
        };
        let mut size = self.take().as_ref().and_then(&mut attempt);
        // The replacement stays in the buffer: an unreadable image must not shift the order. At the end
        // of a pass the buffer may be empty.
        size = size.or_else(|| self.buffer.iter().take(MAX_REPLACEMENTS).find_map(&mut attempt));
        if size.is_none() && self.buffer.is_empty() {
            let members = self.shards.iter().flat_map(|shard| self.tally.index(shard)).take(MAX_REPLACEMENTS);
            size = members.map(|member| BufferedMember { member, bytes: None }).find_map(|waiting| attempt(&waiting));
        }
        if let Some(size) = size {
            return Ok(Drawn { size, unreadable });
        }
        let first = unreadable.first().map_or_else(String::new, |(name, error)| format!("{name}: {error}"));
        Err(ShardError::Unreadable { tried: unreadable.len(), first })
    }

    fn take(&mut self) -> Option<BufferedMember> {
        if !self.refill() {
            self.begin(self.pass + 1);
            self.refill();
        }
        let count = self.buffer.len();
        (count > 0).then(|| {
            let drawn = self.rng.random_range(0..count);
            self.buffer.swap_remove(drawn)
        })
    }

    /// Fills the buffer from the stream; returns whether it holds an image.
    fn refill(&mut self) -> bool {
        while self.buffer.len() < self.options.buffer {
            if let Some(member) = self.to_enter.pop() {
                let ahead = self.options.reading == Reading::Ahead && !self.skipping;
                let bytes = if ahead { member.read().ok() } else { None };
                self.buffer.push(BufferedMember { member, bytes });
            } else if let Some(shard) = self.to_open.pop() {
                self.to_enter = self.tally.index(&shard);
                self.to_enter.reverse();
            } else {
                break;
            }
        }
        !self.buffer.is_empty()
    }
}

impl BufferedMember {
    fn draw(&self, canvas_px: u32, canvas: &mut [u8]) -> Result<ImageSize, PictureError> {
        match &self.bytes {
            Some(bytes) => decode::draw(bytes, canvas_px, canvas),
            None => decode::draw(&self.member.read()?, canvas_px, canvas),
        }
    }
}
