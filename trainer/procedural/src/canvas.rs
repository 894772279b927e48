//! Paints a scene from front to back.
//!
//! A pixel that is covered is never looked at again, so each is textured about once however many
//! leaves lie on it; partial cover at edges is blended exactly by the light still let through.

use crate::colour::Rgb;
use crate::elementary::smoothstep;
use crate::pose::{AtRest, Pose};
use crate::scene::{Leaf, Scene, Shadow};
use crate::shape::{Outline, RelativePoint};
use crate::surface::{Scratch, Surface};
use crate::texture::Program;

/// Less than this is not seen in 8 bits.
const OPAQUE: f32 = 0.004;

/// Size of a picture and of its unit of length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Frame {
    /// Columns.
    pub width_px: usize,
    /// Rows.
    pub height_px: usize,
    /// Pixels in one image unit: leaves and textures are sized in image units.
    pub unit_px: f32,
}

#[derive(Debug, Clone, Copy)]
struct Pixel {
    colour: Rgb,
    /// Share of the light from behind that still gets through.
    open: f32,
    /// Share of the light that shadows of the leaves in front leave.
    light: f32,
    instance: u16,
}

/// A picture in the making, as linear arrays in row order.
#[derive(Debug)]
pub(crate) struct Canvas {
    frame: Frame,
    pixels: Vec<Pixel>,
    /// First and one past the last column of each row that may still be open.
    open_columns: Vec<(usize, usize)>,
    open_rows: usize,
    row: RowBuffers,
}

/// Buffers for one row of one leaf.
#[derive(Debug, Default)]
struct RowBuffers {
    columns: Vec<usize>,
    points: Vec<[f32; 2]>,
    cover: Vec<f32>,
    light: Vec<f32>,
    colours: Vec<Rgb>,
    scratch: Scratch,
}

impl Canvas {
    /// A canvas with nothing on it.
    pub(crate) fn new(frame: Frame) -> Self {
        let empty = Pixel { colour: [0.0; 3], open: 1.0, light: 1.0, instance: 0 };
        Self {
            frame,
            pixels: vec![empty; frame.width_px * frame.height_px],
            open_columns: vec![(0, frame.width_px); frame.height_px],
            open_rows: frame.height_px,
            row: RowBuffers::default(),
        }
    }

    /// Paints the whole scene.
    pub(crate) fn paint(scene: &mut Scene, frame: Frame) -> Self {
        let mut canvas = Self::new(frame);
        while canvas.open_rows > 0 {
            let Some(leaf) = scene.next_leaf() else {
                canvas.lay_background(&scene.background(), &AtRest, None);
                break;
            };
            canvas.lay_leaf(&leaf, &AtRest, None);
        }
        canvas
    }

    /// Colour of every pixel.
    pub(crate) fn colours(&self) -> impl Iterator<Item = Rgb> + '_ {
        self.pixels.iter().map(|pixel| pixel.colour)
    }

    /// Instance of every pixel; 0 is the background.
    pub(crate) fn instances(&self) -> Vec<u16> {
        self.pixels.iter().map(|pixel| pixel.instance).collect()
    }

    /// Adds a leaf behind what is there. Its surface's programs are drawn here, when the first of it
    /// is seen, unless they are given.
    pub(crate) fn lay_leaf(&mut self, leaf: &Leaf, pose: &impl Pose, programs: Option<&[Program]>) {
        let pixel = 1.0 / self.frame.unit_px;
        let edge = pixel * pose.factor() + leaf.softness;
        let radius = leaf.outline.radius();
        let (rows, columns) = self.covered(pose.view_box(leaf.outline.bounds(0.5 * edge)));
        let (mut drawn, mut seen) = (Vec::new(), false);
        for y in rows {
            let py = (y as f32 + 0.5) * pixel;
            self.row.begin();
            let (from, to) = self.open_part(y, &columns);
            for x in from..to {
                let at = y * self.frame.width_px + x;
                if self.pixels[at].open < OPAQUE {
                    continue;
                }
                let point = pose.leaf_point([(x as f32 + 0.5) * pixel, py]);
                let relative = pose.locate(&leaf.outline, point);
                let cover = 0.5 - relative.distance * radius / edge;
                if cover > 0.0 {
                    self.row.add(x, point, cover.min(1.0), brightness(leaf, relative));
                }
            }
            if self.row.columns.is_empty() {
                continue;
            }
            if !seen && programs.is_none() {
                drawn = leaf.surface.prepare(pixel);
            }
            seen = true;
            self.row.shade(&leaf.surface, programs.unwrap_or(&drawn));
            self.blend(y, leaf.instance);
        }
        if let Some(shadow) = leaf.shadow.filter(|_| seen) {
            self.cast(&leaf.outline.moved(pose.leaf_direction(shadow.offset)), pose, shadow);
        }
    }

    /// Fills what is still open with the background.
    pub(crate) fn lay_background(&mut self, surface: &Surface, pose: &impl Pose, programs: Option<&[Program]>) {
        let pixel = 1.0 / self.frame.unit_px;
        let drawn = if programs.is_none() { surface.prepare(pixel) } else { Vec::new() };
        for y in 0..self.frame.height_px {
            self.row.begin();
            let (from, to) = self.open_columns[y];
            for x in from..to {
                if self.pixels[y * self.frame.width_px + x].open >= OPAQUE {
                    let point = pose.leaf_point([(x as f32 + 0.5) * pixel, (y as f32 + 0.5) * pixel]);
                    self.row.add(x, point, 1.0, 1.0);
                }
            }
            self.row.shade(surface, programs.unwrap_or(&drawn));
            self.blend(y, 0);
        }
    }

    /// Adds the row's colours behind what is there, and narrows the row's open part.
    fn blend(&mut self, y: usize, instance: u16) {
        let start = y * self.frame.width_px;
        let row = &self.row;
        for (index, &x) in row.columns.iter().enumerate() {
            let pixel = &mut self.pixels[start + x];
            let share = pixel.open * row.cover[index];
            let light = share * pixel.light * row.light[index];
            for (total, channel) in pixel.colour.iter_mut().zip(row.colours[index]) {
                *total += light * channel;
            }
            let before = pixel.open;
            pixel.open -= share;
            if before > 0.5 && pixel.open <= 0.5 {
                pixel.instance = instance;
            }
        }
        let (mut from, mut to) = self.open_columns[y];
        if from < to {
            while from < to && self.pixels[start + from].open < OPAQUE {
                from += 1;
            }
            while from < to && self.pixels[start + to - 1].open < OPAQUE {
                to -= 1;
            }
            self.open_columns[y] = (from, to);
            self.open_rows -= usize::from(from == to);
        }
    }

    /// Darkens what will be laid behind, inside the moved outline and softly around it.
    fn cast(&mut self, outline: &Outline, pose: &impl Pose, shadow: Shadow) {
        let pixel = 1.0 / self.frame.unit_px;
        let width = shadow.width.max(pixel * pose.factor()) / outline.radius();
        let (rows, columns) = self.covered(pose.view_box(outline.bounds(shadow.width)));
        for y in rows {
            let py = (y as f32 + 0.5) * pixel;
            let (from, to) = self.open_part(y, &columns);
            for x in from..to {
                let target = &mut self.pixels[y * self.frame.width_px + x];
                if target.open >= OPAQUE {
                    let point = pose.leaf_point([(x as f32 + 0.5) * pixel, py]);
                    let distance = pose.locate(outline, point).distance;
                    target.light *= 1.0 - shadow.depth * (1.0 - smoothstep(-width, width, distance));
                }
            }
        }
    }

    /// The rows and columns whose centres may lie in a box of image units.
    fn covered(&self, bounds: [f32; 4]) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
        let unit = self.frame.unit_px;
        // A float becomes an unsigned integer by clamping: what lies outside is cut off.
        let first = |edge: f32| (edge * unit) as usize;
        let last = |edge: f32, end: usize| ((edge * unit).max(-1.0) + 1.0).min(end as f32) as usize;
        let [left, top, right, bottom] = bounds;
        let rows = first(top)..last(bottom, self.frame.height_px);
        (rows, first(left)..last(right, self.frame.width_px))
    }

    /// The part of `columns` that is still open in row `y`.
    fn open_part(&self, y: usize, columns: &std::ops::Range<usize>) -> (usize, usize) {
        let (from, to) = self.open_columns[y];
        (from.max(columns.start), to.min(columns.end))
    }
}

impl RowBuffers {
    fn begin(&mut self) {
        self.columns.clear();
        self.points.clear();
        self.cover.clear();
        self.light.clear();
    }

    #[inline]
    fn add(&mut self, column: usize, point: [f32; 2], cover: f32, light: f32) {
        self.columns.push(column);
        self.points.push(point);
        self.cover.push(cover);
        self.light.push(light);
    }

    fn shade(&mut self, surface: &Surface, programs: &[Program]) {
        surface.shade(programs, &self.points, &mut self.colours, &mut self.scratch);
    }
}

/// Light on a leaf: a slope across it and a darker rim, as on something round.
#[inline]
fn brightness(leaf: &Leaf, point: RelativePoint) -> f32 {
    let slope = leaf.gradient[0] * point.offset[0] + leaf.gradient[1] * point.offset[1];
    let rim = leaf.rim * (1.0 - smoothstep(0.0, 0.35, -point.distance));
    (1.0 + slope.clamp(-0.6, 0.6)) * (1.0 - rim)
}
