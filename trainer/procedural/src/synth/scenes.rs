//! Sequences of a scene with moving objects, with masks and exact correspondences.
//!
//! A folder a sequence: `frames/TTTT.png`, `masks/TTTT.png` (labels of the objects, 0 where nothing
//! moves), and for every frame after the first `positions/TTTT.npy` (`[height, width, 2]` float32: x
//! and y in frame `TTTT` of each pixel of frame 0) and `visible/TTTT.npy` (`[height, width]` uint8: 1
//! where that point is seen). `(0, 0)` is the centre of the top-left pixel. A position is right also
//! where the point is hidden or outside of the frame.

use std::path::Path;

use rayon::prelude::*;

use super::motion::Motion;
use super::photometry::Photometry;
use super::size::Size;
use super::view::Painting;
use super::{Summary, SynthError, make_folder, npy, numbered, write_rgb_png, write_voc_labels};
use crate::ProceduralImages;
use crate::random::{Purpose, Stream};
use crate::stage::{self, Programs, Stage, View};

/// Width and height of the world in views: the camera moves within it.
const WORLD_VIEWS: f32 = 1.5;
/// Share of a full photometric change that a sequence runs through.
const PHOTOMETRIC_STRENGTH: f32 = 0.3;

/// Size and length of every sequence.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clip {
    pub(super) size: Size,
    /// At least 2.
    pub(super) frames: usize,
}

/// Writes `count` sequences into `folder`.
pub(super) fn write_all(
    source: &ProceduralImages,
    clip: Clip,
    count: usize,
    folder: &Path,
) -> Result<Summary, SynthError> {
    (0..count).into_par_iter().try_for_each(|index| {
        let target = folder.join(numbered(index, count));
        make_folder(&target)?;
        Sequence::sample(source, index as u64, clip).write(&target)
    })?;
    Ok(Summary { images: clip.frames * count, sequences: count })
}

/// A scene and its views, before anything is painted.
struct Sequence {
    size: Size,
    stage: Stage,
    views: Vec<View>,
    /// Photometry of the first and of the last frame.
    photometry: [Photometry; 2],
    stream: Stream,
}

/// Positions of the pixels of frame 0 in another frame.
struct Correspondences {
    /// x and y in turn, in pixels.
    positions: Vec<f32>,
    visible: Vec<u8>,
}

impl Sequence {
    fn sample(source: &ProceduralImages, index: u64, Clip { size, frames }: Clip) -> Self {
        let mut stream = source.stream(Purpose::Motion, index);
        let frame = size.frame();
        let extent = [frame.width_px, frame.height_px].map(|side| side as f32 / frame.unit_px);
        let world = extent.map(|length| length * WORLD_VIEWS);
        let stage = Stage::new(source, index, world, 3 + stream.below(4));
        let motion = Motion::sample(stage.pivots(), extent.map(f64::from), world.map(f64::from), &mut stream);
        let last = (frames - 1) as f64;
        let views = (0..frames).map(|frame| motion.view(frame as f64 / last)).collect();
        let photometry = [0; 2].map(|_| Photometry::sample(PHOTOMETRIC_STRENGTH, &mut stream));
        Self { size, stage, views, photometry, stream }
    }

    fn write(mut self, target: &Path) -> Result<(), SynthError> {
        for name in ["frames", "masks", "positions", "visible"] {
            make_folder(&target.join(name))?;
        }
        let (programs, mut exposure) = (self.programs(), None);
        let first = self.mask(&self.views[0]);
        let shape = [self.size.height_px as usize, self.size.width_px as usize];
        for index in 0..self.views.len() {
            let mut painting = self.paint(index, &programs, &mut exposure);
            let name = numbered(index, self.views.len());
            let time = index as f32 / (self.views.len() - 1) as f32;
            let [from, to] = &self.photometry;
            from.towards(to, time).apply(&mut painting, &mut self.stream);
            write_rgb_png(&target.join("frames").join(format!("{name}.png")), &painting.to_bytes(), self.size)?;
            let mask = self.mask(&self.views[index]);
            write_voc_labels(&target.join("masks").join(format!("{name}.png")), &mask, self.size)?;
            if index > 0 {
                let found = self.correspondences(&first, index);
                let file = format!("{name}.npy");
                npy::write_f32(&target.join("positions").join(&file), &[shape[0], shape[1], 2], &found.positions)?;
                npy::write_u8(&target.join("visible").join(&file), &shape, &found.visible)?;
            }
        }
        Ok(())
    }

    fn programs(&self) -> Programs {
        self.stage.prepare(&self.views, self.size.frame().unit_px)
    }

    /// A frame before the camera. The first to be painted sets the exposure of all.
    fn paint(&self, index: usize, programs: &Programs, exposure: &mut Option<f32>) -> Painting {
        let frame = self.size.frame();
        let mut colours = self.stage.paint(&self.views[index], programs, frame);
        let factor = *exposure.get_or_insert_with(|| stage::exposure(&colours));
        colours.iter_mut().flatten().for_each(|channel| *channel *= factor);
        Painting { width_px: frame.width_px, height_px: frame.height_px, colours }
    }

    /// The object that each pixel's centre shows, in row order.
    fn mask(&self, view: &View) -> Vec<u8> {
        let pixels = self.pixels();
        pixels.map(|point| self.stage.object_at(view, self.unit_from_pixel(point)) as u8).collect()
    }

    /// From frame 0, of which `first` is the mask, to frame `index`. Leaves of one object keep their
    /// places on each other, so a point is hidden exactly where another object shows.
    fn correspondences(&self, first: &[u8], index: usize) -> Correspondences {
        let (from, to) = (&self.views[0], &self.views[index]);
        let (width, height) = (self.size.width_px as f32, self.size.height_px as f32);
        let mut positions = Vec::with_capacity(2 * first.len());
        let mut visible = Vec::with_capacity(first.len());
        for (point, &object) in self.pixels().zip(first) {
            let object = usize::from(object);
            let there = from.carry(to, object, self.unit_from_pixel(point));
            // Rounded as it is written, so that a visible point's nearest pixel is in the frame.
            let [x, y] = self.pixel_from_unit(there).map(|coordinate| coordinate as f32);
            positions.extend([x, y]);
            let inside = x >= -0.5 && x < width - 0.5 && y >= -0.5 && y < height - 0.5;
            visible.push(u8::from(inside && self.stage.object_at(to, there) == object));
        }
        Correspondences { positions, visible }
    }

    /// The centres of all pixels in row order.
    fn pixels(&self) -> impl Iterator<Item = [f64; 2]> + use<> {
        let (width, height) = (self.size.width_px, self.size.height_px);
        (0..height).flat_map(move |y| (0..width).map(move |x| [f64::from(x), f64::from(y)]))
    }

    fn unit_from_pixel(&self, point: [f64; 2]) -> [f64; 2] {
        point.map(|coordinate| (coordinate + 0.5) / f64::from(self.size.frame().unit_px))
    }

    fn pixel_from_unit(&self, point: [f64; 2]) -> [f64; 2] {
        point.map(|coordinate| coordinate * f64::from(self.size.frame().unit_px) - 0.5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: Clip = Clip { size: Size { width_px: 160, height_px: 120 }, frames: 5 };

    /// A sequence with its paintings, masks and correspondences.
    struct Shown {
        paintings: Vec<Painting>,
        masks: Vec<Vec<u8>>,
        found: Vec<Correspondences>,
    }

    fn shown(index: u64) -> Shown {
        let source = ProceduralImages::new(11, 120);
        let mut sequence = Sequence::sample(&source, index, CLIP);
        // A shadow falls on other points as things move, which changes their colours.
        sequence.stage = sequence.stage.without_shadows();
        let (programs, mut exposure) = (sequence.programs(), None);
        let masks: Vec<Vec<u8>> = sequence.views.iter().map(|view| sequence.mask(view)).collect();
        Shown {
            paintings: (0..CLIP.frames).map(|frame| sequence.paint(frame, &programs, &mut exposure)).collect(),
            found: (1..CLIP.frames).map(|frame| sequence.correspondences(&masks[0], frame)).collect(),
            masks,
        }
    }

    /// Returns whether all labels within one pixel of the nearest pixel's centre are equal.
    fn label_around(mask: &[u8], [x, y]: [f32; 2]) -> Option<u8> {
        let (width, height) = (CLIP.size.width_px as usize, CLIP.size.height_px as usize);
        let (column, row) = (x.round() as usize, y.round() as usize);
        if column < 1 || row < 1 || column + 1 >= width || row + 1 >= height || x < 0.0 || y < 0.0 {
            return None;
        }
        let label = mask[row * width + column];
        let same = |at: usize| mask[at] == label;
        (row - 1..=row + 1)
            .all(|row| (column - 1..=column + 1).all(|column| same(row * width + column)))
            .then_some(label)
    }

    /// Pixels of frame 0 whose surroundings show one object alone, with where they are in `frame`.
    fn inner_points(shown: &Shown, frame: usize) -> Vec<([f32; 2], u8, [f32; 2], bool)> {
        let found = &shown.found[frame - 1];
        let width = CLIP.size.width_px as usize;
        (0..shown.masks[0].len())
            .filter_map(|at| {
                let point = [(at % width) as f32, (at / width) as f32];
                let label = label_around(&shown.masks[0], point)?;
                let there = [found.positions[2 * at], found.positions[2 * at + 1]];
                Some((point, label, there, found.visible[at] == 1))
            })
            .collect()
    }

    #[test]
    fn labels_follow_visible_points_and_change_on_hidden_ones() {
        let (mut visible, mut hidden, mut behind_threads, mut sequences) = (0, 0, 0, 0);
        for index in 0..8 {
            let shown = shown(index);
            let before = hidden;
            for frame in 1..CLIP.frames {
                for (_, label, there, seen) in inner_points(&shown, frame) {
                    let Some(other) = label_around(&shown.masks[frame], there) else { continue };
                    if seen {
                        assert_eq!(other, label, "{index}, frame {frame}: {there:?}");
                        visible += 1;
                    } else {
                        // Something thinner than a pixel hides a point without showing at any centre.
                        behind_threads += usize::from(other == label);
                        hidden += 1;
                    }
                }
            }
            sequences += usize::from(hidden - before > 200);
        }
        assert!(visible > 100_000 && hidden > 5_000, "{visible} visible, {hidden} hidden");
        assert!(behind_threads * 500 < hidden, "{behind_threads} of {hidden} hidden points show their own object");
        assert!(sequences >= 6, "something is hidden in {sequences} of 8 sequences only");
    }

    /// Compares the pixels: the colours of frame 0 fit those of the other frame best where the
    /// correspondences say, to a small part of a pixel.
    #[test]
    fn colours_fit_best_at_the_positions() {
        // Sums of squared differences with positions shifted to the left, not at all, to the right;
        // the same upwards and downwards.
        let shift = 0.5;
        for index in 0..4 {
            let shown = shown(index);
            let mut errors = [[0.0_f64; 3]; 2];
            let mut count = 0_u32;
            for frame in 1..CLIP.frames {
                for (point, label, there, seen) in inner_points(&shown, frame) {
                    if !seen || label_around(&shown.masks[frame], there) != Some(label) {
                        continue;
                    }
                    count += 1;
                    let colour = shown.paintings[0].at(point.map(f64::from));
                    let places = [[shift, 0.0], [0.0, shift]];
                    for (errors, step) in errors.iter_mut().zip(places) {
                        for (error, sign) in errors.iter_mut().zip([-1.0, 0.0, 1.0]) {
                            let place = [f64::from(there[0]) + sign * step[0], f64::from(there[1]) + sign * step[1]];
                            let other = shown.paintings[frame].at(place);
                            *error += colour.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
                        }
                    }
                }
            }
            assert!(count > 10_000, "{index}: {count} points");
            for [before, here, after] in errors {
                // The lowest point of the parabola through the three.
                let offset = 0.5 * shift * (before - after) / (before - 2.0 * here + after);
                assert!(offset.abs() < 0.03, "{index}: off by {offset} px");
                let deviation = (here / f64::from(3 * count)).sqrt();
                assert!(deviation < 0.06, "{index}: colours differ by {deviation}");
                assert!(here < 0.8 * before.min(after));
            }
        }
    }
}
