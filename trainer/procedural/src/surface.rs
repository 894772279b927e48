//! Surface of a leaf: one textured layer, or two to six mixed by a mask.

use crate::Split;
use crate::colour::{Palette, Ramp, Rgb};
use crate::elementary::{cos_turns, floor, fraction, sin_turns, smoothstep};
use crate::lattice::{Lattice, Octaves};
use crate::random::Stream;
use crate::texture::{Program, ProgramId, Sample};

/// A texture program, its place on the image and its colours.
#[derive(Debug, Clone)]
struct Layer {
    id: ProgramId,
    /// From image units to the program's plane: a turn, a scale and a shift.
    axes: [f32; 2],
    shift: [f32; 2],
    ramp: Ramp,
}

impl Layer {
    fn sample(choice: &Choice<'_>, stream: &mut Stream) -> Self {
        // Features from a fortieth of the image to about the leaf's own size.
        let wavelength = stream.log_range(0.025, (1.5 * choice.extent).clamp(0.05, 0.7));
        let turns = if stream.chance(0.5) { 0.0 } else { stream.unit() };
        Self {
            id: ProgramId::sample(choice.split, stream),
            axes: [cos_turns(turns) / wavelength, sin_turns(turns) / wavelength],
            shift: [stream.range(-40.0, 40.0), stream.range(-40.0, 40.0)],
            ramp: Ramp::sample(choice.palette, stream),
        }
    }

    fn program(&self, pixel: f32) -> Program {
        let scale = (self.axes[0] * self.axes[0] + self.axes[1] * self.axes[1]).sqrt();
        Program::new(self.id, pixel * scale)
    }

    #[inline]
    fn point(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [self.axes[0] * x + self.axes[1] * y + self.shift[0], self.axes[0] * y - self.axes[1] * x + self.shift[1]]
    }
}

#[derive(Debug, Clone, Copy)]
enum Pattern {
    /// Patches with a ragged border.
    Noise,
    /// Bands across the image.
    Bands,
    /// A slow change from one side to the other.
    Gradient,
}

/// Says which layer shows where.
#[derive(Debug, Clone)]
struct Mask {
    lattice: Lattice,
    octaves: Octaves,
    pattern: Pattern,
    axes: [f32; 2],
    shift: f32,
    blend: f32,
}

impl Mask {
    fn sample(stream: &mut Stream) -> Self {
        let frequency = stream.log_range(0.8, 5.0);
        let turns = stream.unit();
        Self {
            lattice: Lattice::new(),
            octaves: Octaves::new(4, stream.range(0.3, 0.6), 0.02 * frequency),
            pattern: match stream.weighted(&[0.6, 0.2, 0.2]) {
                0 => Pattern::Noise,
                1 => Pattern::Bands,
                _ => Pattern::Gradient,
            },
            axes: [frequency * cos_turns(turns), frequency * sin_turns(turns)],
            shift: stream.range(0.0, 100.0),
            blend: stream.log_range(0.03, 1.0),
        }
    }

    /// Position in `[0, 1)`, to be cut into as many parts as there are layers.
    #[inline]
    fn at(&self, [x, y]: [f32; 2]) -> f32 {
        let u = self.axes[0] * x + self.axes[1] * y;
        let v = self.axes[0] * y - self.axes[1] * x;
        let noise = self.lattice.fractal(u + self.shift, v, self.octaves);
        let position = match self.pattern {
            Pattern::Noise => 0.5 + 0.45 * noise,
            Pattern::Bands => fraction(0.5 * u + 0.25 * noise + self.shift),
            Pattern::Gradient => 0.35 * u + 0.1 * noise + 0.3,
        };
        position.clamp(0.0, 0.9999)
    }
}

/// Sources of a surface's textures and colours.
pub(crate) struct Choice<'a> {
    /// Split whose texture programs are used.
    pub(crate) split: Split,
    /// The image's colours.
    pub(crate) palette: &'a Palette,
    /// Size of the surface in image units.
    pub(crate) extent: f32,
    /// Probability of more than one layer.
    pub(crate) mixing: f32,
}

/// The look of a leaf, before light.
#[derive(Debug, Clone)]
pub(crate) struct Surface {
    layers: Vec<Layer>,
    mask: Option<Mask>,
}

impl Surface {
    /// A random surface.
    pub(crate) fn sample(choice: &Choice<'_>, stream: &mut Stream) -> Self {
        let mixed = stream.chance(choice.mixing);
        let count = if mixed { 2 + stream.weighted(&[0.5, 0.25, 0.12, 0.08, 0.05]) } else { 1 };
        let mask = mixed.then(|| Mask::sample(stream));
        let layers = (0..count).map(|_| Layer::sample(choice, stream)).collect();
        Self { layers, mask }
    }

    /// Draws the parameters of the surface's programs, which costs more than all the rest: to be
    /// called only when something of the leaf is seen. `pixel` is a pixel's width in image units.
    pub(crate) fn prepare(&self, pixel: f32) -> Vec<Program> {
        self.layers.iter().map(|layer| layer.program(pixel)).collect()
    }

    /// Colours of `points` (image units) into `colours`.
    pub(crate) fn shade(
        &self,
        programs: &[Program],
        points: &[[f32; 2]],
        colours: &mut Vec<Rgb>,
        scratch: &mut Scratch,
    ) {
        colours.clear();
        colours.resize(points.len(), [0.0; 3]);
        scratch.weights.clear();
        if let Some(mask) = &self.mask {
            scratch.positions.clear();
            scratch.positions.extend(points.iter().map(|&point| mask.at(point)));
        }
        for (index, (layer, program)) in self.layers.iter().zip(programs).enumerate() {
            scratch.select(points, self.mask.as_ref(), index, self.layers.len());
            scratch.planes.clear();
            scratch.planes.extend(scratch.chosen.iter().map(|&at| layer.point(points[at])));
            scratch.samples.clear();
            scratch.samples.resize(scratch.planes.len(), Sample::default());
            program.fill(&scratch.planes, &mut scratch.samples);
            let shaded = scratch.chosen.iter().zip(&scratch.weights).zip(&scratch.samples);
            for ((&at, &weight), &sample) in shaded {
                let colour = layer.ramp.colour(sample);
                for (total, channel) in colours[at].iter_mut().zip(colour) {
                    *total += weight * channel;
                }
            }
        }
    }
}

/// Buffers that [`Surface::shade`] uses again for every row.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    positions: Vec<f32>,
    chosen: Vec<usize>,
    weights: Vec<f32>,
    planes: Vec<[f32; 2]>,
    samples: Vec<Sample>,
}

impl Scratch {
    /// The points where layer `index` of `count` shows, and how strongly.
    fn select(&mut self, points: &[[f32; 2]], mask: Option<&Mask>, index: usize, count: usize) {
        self.chosen.clear();
        self.weights.clear();
        let Some(mask) = mask else {
            self.chosen.extend(0..points.len());
            self.weights.resize(points.len(), 1.0);
            return;
        };
        for (at, position) in self.positions.iter().enumerate() {
            let weight = layer_weight(position * count as f32, index, count, mask.blend);
            if weight > 0.0 {
                self.chosen.push(at);
                self.weights.push(weight);
            }
        }
    }
}

/// Share of layer `index` at `position` in `[0, count)`: neighbours blend over a width of `blend`
/// around each whole number, and the shares of all layers add up to 1.
#[inline]
fn layer_weight(position: f32, index: usize, count: usize, blend: f32) -> f32 {
    let step = |border: usize| {
        let border = border as f32;
        smoothstep(border - 0.5 * blend, border + 0.5 * blend, position)
    };
    let here = floor(position);
    if (here - index as i32).abs() > 1 {
        return 0.0;
    }
    let entered = if index == 0 { 1.0 } else { step(index) };
    let left = if index + 1 == count { 0.0 } else { step(index + 1) };
    entered - left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_weights_add_up() {
        for count in 1..=6_usize {
            for blend in [0.03_f32, 0.5, 1.0] {
                for step in 0..200_u8 {
                    let position = f32::from(step) / 200.0 * count as f32;
                    let weights = (0..count).map(|i| layer_weight(position, i, count, blend));
                    let sum: f32 = weights.inspect(|w| assert!(*w >= 0.0)).sum();
                    assert!((sum - 1.0).abs() < 1e-5, "{position} of {count}: {sum}");
                }
            }
        }
    }
}
