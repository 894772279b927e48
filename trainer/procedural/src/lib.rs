//! Procedural images with the statistics of photographs, and the sets with exact truth that are made of them.
//!
//! A picture is a stack of textured leaves (`scene`), each a shape (`shape`) with a surface (`surface`, `texture`,
//! `colour`), painted from front to back (`canvas`) and photographed (`camera`). Two further kinds of picture serve
//! measurements: objects that move (`stage`), and figures of known categories (`figure`, `labelled`). [`synth`] writes
//! sets of them to disk.
//!
//! This crate reads no files, keeps no state and knows nothing of training.
//!
//! Invariants: a picture is a pure function of split, seed, index and frame; only IEEE basic arithmetic is used, so the
//! bytes are the same on every machine; the texture programs of the two splits are disjoint.
//!
//! ```
//! use densecl_procedural::{ProceduralImages, Split};
//!
//! let images = ProceduralImages::new(1, 64).with_split(Split::HeldOut);
//! let rgb = images.render(0); // [64, 64, 3]
//! assert_eq!(rgb.len(), 64 * 64 * 3);
//! assert_ne!(rgb, images.render(1));
//! ```

mod camera;
mod canvas;
mod colour;
mod elementary;
mod figure;
mod labelled;
mod lattice;
mod pose;
pub(crate) mod random;
mod scene;
mod shape;
pub(crate) mod similarity;
pub(crate) mod stage;
mod surface;
pub mod synth;
mod texture;

pub use self::canvas::Frame;
pub(crate) use self::elementary::pow as power;
pub(crate) use self::figure::Category;
pub(crate) use self::labelled::FigurePicture;

use self::camera::Camera;
use self::canvas::Canvas;
use self::scene::Scene;

/// Set of pictures: for training or for evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Split {
    /// For training.
    #[default]
    Train,
    /// For evaluation: other random streams, other texture programs, and some texture families that
    /// training never draws.
    HeldOut,
}

impl Split {
    /// Key of picture `index` in random streams. The top bit is the split's, so that no held-out
    /// picture is a training picture.
    fn key(self, index: u64) -> u64 {
        match self {
            Self::Train => index,
            Self::HeldOut => index ^ (1 << 63),
        }
    }
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

    /// Pictures of another split with the seed and size of these.
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

    /// Scene `index` before any camera: gamma-encoded RGB in about `[0, 1]`, `[height, width]`,
    /// exposed but without blur, vignette and noise, which belong to a view and not to the scene.
    pub(crate) fn paint(&self, index: u64, frame: Frame) -> Vec<[f32; 3]> {
        let mut colours: Vec<_> = self.compose(index, frame).colours().collect();
        let exposure = camera::automatic_exposure(&colours);
        colours.iter_mut().flatten().for_each(|channel| *channel *= exposure);
        colours
    }

    /// A random stream for something else than drawing that goes with picture `index`.
    pub(crate) fn stream(&self, purpose: random::Purpose, index: u64) -> random::Stream {
        random::Stream::new(purpose, self.seed, self.split.key(index))
    }

    fn draw(&self, index: u64, frame: Frame, pixels: &mut [u8]) -> Canvas {
        let canvas = self.compose(index, frame);
        Camera::sample(self.seed, self.split.key(index)).develop(&canvas, frame, pixels);
        canvas
    }

    fn compose(&self, index: u64, frame: Frame) -> Canvas {
        let extent = [frame.width_px, frame.height_px].map(|side| side as f32 / frame.unit_px);
        let mut scene = Scene::new(self.split, self.seed, index, extent);
        Canvas::paint(&mut scene, frame)
    }

    fn frame(&self) -> Frame {
        let side = self.side_px as usize;
        Frame { width_px: side, height_px: side, unit_px: side as f32 }
    }

    fn byte_count(&self) -> usize {
        3 * self.side_px as usize * self.side_px as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 64;

    fn luminance(pixels: &[u8]) -> Vec<f64> {
        pixels.chunks_exact(3).map(|rgb| rgb.iter().map(|c| f64::from(*c)).sum::<f64>() / 765.0).collect()
    }

    #[test]
    fn a_picture_is_a_function_of_split_seed_and_index() {
        let images = ProceduralImages::new(7, 48);
        let picture = images.render(3);
        assert_eq!(picture.len(), 3 * 48 * 48);
        assert_eq!(picture, ProceduralImages::new(7, 48).render(3));
        assert_ne!(picture, images.render(4));
        assert_ne!(picture, ProceduralImages::new(8, 48).render(3));
        assert_ne!(picture, images.with_split(Split::HeldOut).render(3));
    }

    #[test]
    fn every_entry_point_draws_the_same_picture() {
        let images = ProceduralImages::new(1, 40);
        for index in 0..12 {
            let mut buffer = vec![9; 3 * 40 * 40];
            images.render_into(index, &mut buffer);
            let labelled = images.render_labelled(index);
            assert_eq!(buffer, labelled.pixels);
            assert_eq!(buffer, images.render(index));
            assert_eq!(labelled.instances.len(), 40 * 40);
        }
    }

    #[test]
    fn threads_do_not_matter() {
        let images = ProceduralImages::new(2, 32);
        let alone: Vec<_> = (0..16).map(|index| images.render(index)).collect();
        let together: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..16).map(|index| scope.spawn(move || images.render(index))).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(alone, together);
    }

    #[test]
    fn a_larger_frame_continues_the_scene() {
        // Leaves are placed over the whole frame, so only size and shape are promised.
        let frame = Frame { width_px: 70, height_px: 30, unit_px: 40.0 };
        let picture = ProceduralImages::new(0, 40).render_frame(5, frame);
        assert_eq!(picture.pixels.len(), 3 * 70 * 30);
        assert_eq!(picture.instances.len(), 70 * 30);
    }

    #[test]
    fn brightness_and_contrast_are_those_of_photographs() {
        let images = ProceduralImages::new(0, SIDE as u32);
        let (mut means, mut deviations) = (Vec::new(), Vec::new());
        for index in 0..60 {
            let light = luminance(&images.render(index));
            let mean = light.iter().sum::<f64>() / light.len() as f64;
            let variance = light.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / light.len() as f64;
            means.push(mean);
            deviations.push(variance.sqrt());
        }
        let average = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!((0.3..0.6).contains(&average(&means)), "{}", average(&means));
        assert!((0.1..0.28).contains(&average(&deviations)), "{}", average(&deviations));
        assert!(means.iter().all(|mean| (0.1..0.85).contains(mean)), "{means:?}");
        let flat = deviations.iter().filter(|deviation| **deviation < 0.03).count();
        assert!(flat <= 6, "{flat} of 60 pictures are all but empty");
    }

    #[test]
    fn the_power_spectrum_falls_as_in_photographs() {
        let images = ProceduralImages::new(0, SIDE as u32);
        let mut power = [0.0; SIDE / 2];
        for index in 0..24 {
            add_radial_power(&luminance(&images.render(index)), &mut power);
        }
        // Least squares on logarithms, away from both ends.
        let points: Vec<(f64, f64)> = (2..24).map(|f| ((f as f64).ln(), power[f].ln())).collect();
        let n = points.len() as f64;
        let (mx, my) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
        let (cross, square) =
            points.iter().fold((0.0, 0.0), |(c, s), p| (c + (p.0 - mx) * (p.1 - my), s + (p.0 - mx).powi(2)));
        let slope = cross / square;
        assert!((-3.0..-1.4).contains(&slope), "power falls as f^{slope}");
    }

    /// Adds the mean power at each whole radial frequency, by a plain separable transform.
    fn add_radial_power(light: &[f64], power: &mut [f64; SIDE / 2]) {
        let turn = |k: usize| (std::f64::consts::TAU * (k % SIDE) as f64 / SIDE as f64).sin_cos();
        let mean = light.iter().sum::<f64>() / light.len() as f64;
        let mut rows = vec![(0.0, 0.0); SIDE * SIDE];
        for (at, cell) in rows.iter_mut().enumerate() {
            let (y, f) = (at / SIDE, at % SIDE);
            for x in 0..SIDE {
                let ((sin, cos), value) = (turn(f * x), light[y * SIDE + x] - mean);
                *cell = (cell.0 + value * cos, cell.1 - value * sin);
            }
        }
        let mut sums = [(0.0_f64, 0.0_f64); SIDE / 2];
        for at in 0..SIDE * SIDE {
            let (fy, fx) = (at / SIDE, at % SIDE);
            let (mut re, mut im) = (0.0, 0.0);
            for y in 0..SIDE {
                let ((sin, cos), (a, b)) = (turn(fy * y), rows[y * SIDE + fx]);
                re += a * cos + b * sin;
                im += b * cos - a * sin;
            }
            let folded = |f: usize| f.min(SIDE - f) as f64;
            let radius = folded(fx).hypot(folded(fy)).round() as usize;
            if let Some(sum) = sums.get_mut(radius) {
                *sum = (sum.0 + re * re + im * im, sum.1 + 1.0);
            }
        }
        power.iter_mut().zip(sums).for_each(|(total, (sum, count))| *total += sum / count.max(1.0));
    }
}
