//! Images without a data set: endless drawn pictures with the statistics of photographs.
//!
//! A picture is a stack of textured leaves (`scene`), each a shape (`shape`) with a surface
//! (`surface`, `texture`, `colour`), painted front to back (`canvas`) and photographed (`camera`).
//! Nothing here reads a file or keeps state.
//!
//! Invariants: a picture is a pure function of split, seed, index and frame; only IEEE basic
//! arithmetic is used, so the bytes are the same on every machine; the texture programs of the two
//! splits are disjoint.

mod camera;
mod canvas;
mod colour;
mod elementary;
mod lattice;
pub(crate) mod random;
mod scene;
mod shape;
mod surface;
mod texture;

pub use self::canvas::Frame;

use self::camera::Camera;
use self::canvas::Canvas;
use self::scene::Scene;

/// Which pictures: those for training, or those kept for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// For training.
    #[default]
    Train,
    /// For evaluation: other random streams, other texture programs, and some texture families that
    /// training never draws.
    HeldOut,
}

/// A picture and what is seen where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// RGB bytes in row order, `[height, width, 3]`.
    pub pixels: Vec<u8>,
    /// The object seen at each pixel, `[height, width]`; 0 is the background.
    pub instances: Vec<u16>,
}

/// An endless sequence of square pictures.
///
/// Cheap to copy and free of state: any number of threads may render at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProceduralImages {
    seed: u64,
    side_px: u32,
    split: Split,
}

impl ProceduralImages {
    /// Training pictures `size_px` wide and high.
    pub fn new(seed: u64, size_px: u32) -> Self {
        Self { seed, side_px: size_px, split: Split::Train }
    }

    /// The same seed and size from another split.
    #[must_use]
    pub fn with_split(self, split: Split) -> Self {
        Self { split, ..self }
    }

    /// Width and height in pixels.
    pub fn size_px(&self) -> u32 {
        self.side_px
    }

    /// Picture `index` as RGB bytes, `[size, size, 3]`.
    pub fn render(&self, index: u64) -> Vec<u8> {
        let mut pixels = vec![0; self.byte_count()];
        self.render_into(index, &mut pixels);
        pixels
    }

    /// Picture `index` into `pixels`, `[size, size, 3]`.
    ///
    /// # Panics
    /// If `pixels` is not exactly `3 * size * size` bytes long.
    pub fn render_into(&self, index: u64, pixels: &mut [u8]) {
        assert_eq!(pixels.len(), self.byte_count(), "the buffer must hold one RGB picture");
        self.draw(index, self.frame(), pixels);
    }

    /// Picture `index` together with its instances.
    pub fn render_labelled(&self, index: u64) -> Picture {
        self.render_frame(index, self.frame())
    }

    /// Scene `index` in a frame of any size and shape; a larger frame shows more of it at the same
    /// `unit_px`.
    pub fn render_frame(&self, index: u64, frame: Frame) -> Picture {
        let mut pixels = vec![0; 3 * frame.width_px * frame.height_px];
        let canvas = self.draw(index, frame, &mut pixels);
        Picture { pixels, instances: canvas.instances() }
    }

    fn draw(&self, index: u64, frame: Frame, pixels: &mut [u8]) -> Canvas {
        let extent = [frame.width_px, frame.height_px].map(|side| side as f32 / frame.unit_px);
        let mut scene = Scene::new(self.split, self.seed, index, extent);
        let canvas = Canvas::paint(&mut scene, frame);
        Camera::sample(self.seed, index).develop(&canvas, frame, pixels);
        canvas
    }

    fn frame(&self) -> Frame {
        let side = self.side_px as usize;
        Frame { width_px: side, height_px: side, unit_px: side as f32 }
    }

    fn byte_count(&self) -> usize {
        3 * self.side_px as usize * self.side_px as usize
    }
}
