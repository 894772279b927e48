//! Inputs: JPEG files.

use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, ensure};
use axum::body::Bytes;
use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

/// Number of different images, which are sent in turn.
const COUNT: usize = 16;
const QUALITY: u8 = 90;

/// Files that are sent in turn.
#[derive(Clone)]
pub(crate) struct Inputs(std::sync::Arc<[Bytes]>);

impl Inputs {
    /// The files of a folder, or textures of this width and height.
    pub(crate) fn new(folder: Option<&Path>, size: (u32, u32)) -> anyhow::Result<Self> {
        let texture = |seed: usize| Bytes::from(jpeg(seed as u32, size));
        let Some(folder) = folder else { return Ok(Self((0..COUNT).map(texture).collect())) };
        let mut paths: Vec<_> = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jpg"))
            .collect();
        paths.sort();
        ensure!(!paths.is_empty(), "{} has no file *.jpg", folder.display());
        let files = paths.iter().map(|path| Ok(std::fs::read(path)?.into()));
        Ok(Self(files.collect::<anyhow::Result<_>>()?))
    }

    /// All files.
    pub(crate) fn files(&self) -> &[Bytes] {
        &self.0
    }

    /// The file of request `index`.
    pub(crate) fn file(&self, index: usize) -> &Bytes {
        &self.0[index % self.0.len()]
    }
}

fn jpeg(seed: u32, (width, height): (u32, u32)) -> Vec<u8> {
    let wave = |x: u32, y: u32, channel: u32| {
        let (x, y, phase) = (f64::from(x), f64::from(y), f64::from(seed * 3 + channel));
        let coarse = (x / 61.0 + phase).sin() * (y / 43.0 - phase).cos();
        let fine = (x / 5.3 + y / 7.1 * (1.0 + phase / 9.0)).sin() * 0.4;
        ((coarse + fine + 1.4) / 2.8 * 255.0).clamp(0.0, 255.0) as u8
    };
    let picture = RgbImage::from_fn(width, height, |x, y| Rgb([0, 1, 2].map(|channel| wave(x, y, channel))));
    let mut file = Cursor::new(Vec::new());
    let encoder = JpegEncoder::new_with_quality(&mut file, QUALITY);
    picture.write_with_encoder(encoder).expect("a JPEG holds RGB");
    file.into_inner()
}
