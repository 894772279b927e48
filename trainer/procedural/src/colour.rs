//! Colours: an image's palette and the ramp that turns a texture's values into RGB.
//!
//! All values are gamma-encoded RGB in about `[0, 1]`. Photographs vary mostly in brightness, less
//! along blue-yellow, least along green-magenta (G. Buchsbaum and A. Gottschalk 1983); the
//! distributions below follow that order.

use crate::elementary::{floor, fraction, lerp};
use crate::random::Stream;
use crate::texture::Sample;

/// Red, green, blue.
pub(crate) type Rgb = [f32; 3];

/// The handful of colours that one image is made of.
#[derive(Debug, Clone)]
pub(crate) struct Palette {
    colours: Vec<Rgb>,
}

impl Palette {
    /// A palette around one or two hues, warm, green and blue ones more often, greys included.
    pub(crate) fn sample(stream: &mut Stream) -> Self {
        let key = natural_hue(stream);
        let spread = stream.range(0.02, 0.16);
        let second = key + if stream.chance(0.5) { 0.5 } else { stream.range(-0.35, 0.35) };
        let saturation = 0.1 + 0.75 * stream.unit() * stream.unit().sqrt();
        let brightness = stream.range(0.35, 0.65);
        let count = 4 + stream.below(4);
        let colours = (0..count)
            .map(|_| {
                let anchor = match stream.weighted(&[0.5, 0.28, 0.22]) {
                    0 => key,
                    1 => second,
                    _ => natural_hue(stream),
                };
                let hue = anchor + spread * stream.normal();
                let value = (brightness + 0.24 * stream.normal()).clamp(0.06, 0.98);
                let grey = if stream.chance(0.25) { 0.2 } else { 1.0 };
                let strength = grey * saturation * stream.range(0.3, 1.2);
                rgb_from_hsv(hue, strength.min(0.95), value)
            })
            .collect();
        Self { colours }
    }

    /// One of the palette's colours, a little varied.
    pub(crate) fn colour(&self, stream: &mut Stream) -> Rgb {
        let base = self.colours[stream.below(self.colours.len() as u32) as usize];
        let light = 1.0 + 0.15 * stream.normal();
        base.map(|channel| (channel * light + 0.02 * stream.normal()).clamp(0.02, 0.98))
    }
}

/// Hues as they are met outdoors and indoors: skin, wood and soil, leaves, sky, then the rest.
fn natural_hue(stream: &mut Stream) -> f32 {
    match stream.weighted(&[0.36, 0.22, 0.24, 0.18]) {
        0 => 0.08 + 0.03 * stream.normal(),
        1 => 0.27 + 0.05 * stream.normal(),
        2 => 0.58 + 0.04 * stream.normal(),
        _ => stream.unit(),
    }
}

/// Hue in turns, saturation and value to RGB.
fn rgb_from_hsv(hue: f32, saturation: f32, value: f32) -> Rgb {
    [5.0, 3.0, 1.0].map(|offset| {
        let k = 6.0 * fraction((offset / 6.0) + hue);
        value * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))
    })
}

const STOPS: usize = 48;

/// Maps a texture's [`Sample`] to a colour: brightness along a curve through colour space, and two
/// fainter directions across it.
#[derive(Debug, Clone)]
pub(crate) struct Ramp {
    table: [Rgb; STOPS + 1],
    across: [Rgb; 2],
}

impl Ramp {
    /// A ramp for one leaf of an image with this palette.
    pub(crate) fn sample(palette: &Palette, stream: &mut Stream) -> Self {
        let anchors = match stream.weighted(&[0.58, 0.28, 0.14]) {
            0 => tonal(palette.colour(stream), stream),
            1 => (0..2 + stream.below(3)).map(|_| palette.colour(stream)).collect(),
            _ => {
                let other = Palette::sample(stream);
                (0..2 + stream.below(3)).map(|_| other.colour(stream)).collect()
            }
        };
        let contrast = stream.log_range(0.18, 1.25);
        let table = std::array::from_fn(|stop| {
            let position = 0.5 + contrast * (stop as f32 / STOPS as f32 - 0.5);
            along(&anchors, position.clamp(0.0, 1.0))
        });
        let strength = 0.1 * stream.unit() * contrast.min(1.0);
        // Blue against yellow, then green against magenta, half as strong.
        let across = [[0.6 * strength, 0.5 * strength, -strength], [0.3 * strength, -0.5 * strength, 0.3 * strength]];
        Self { table, across }
    }

    /// The colour of one sample.
    #[inline]
    pub(crate) fn colour(&self, sample: Sample) -> Rgb {
        let position = sample.value.clamp(0.0, 1.0) * STOPS as f32;
        let stop = (floor(position) as usize).min(STOPS - 1);
        let t = position - stop as f32;
        let (low, high) = (self.table[stop], self.table[stop + 1]);
        let [warm, green] = sample.chroma;
        std::array::from_fn(|c| lerp(low[c], high[c], t) + warm * self.across[0][c] + green * self.across[1][c])
    }
}

/// Shadow, body and highlight of one material: shadows cooler, highlights paler.
fn tonal(body: Rgb, stream: &mut Stream) -> Vec<Rgb> {
    let dark = stream.range(0.2, 0.65);
    let light = stream.range(0.15, 0.6);
    let cool = stream.range(0.0, 0.12);
    let shadow = [body[0] * (dark - 0.5 * cool), body[1] * dark, body[2] * (dark + cool)];
    let highlight = body.map(|channel| lerp(channel, 0.97, light));
    if stream.chance(0.15) { vec![highlight, body, shadow] } else { vec![shadow, body, highlight] }
}

/// The colour at `position` in `[0, 1]` along evenly spaced anchors.
fn along(anchors: &[Rgb], position: f32) -> Rgb {
    let last = anchors.len() - 1;
    let at = position * last as f32;
    let from = (floor(at) as usize).min(last.saturating_sub(1));
    let (low, high) = (anchors[from], anchors[(from + 1).min(last)]);
    std::array::from_fn(|c| lerp(low[c], high[c], at - from as f32))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Purpose;

    #[test]
    fn hsv_corners() {
        let corners = [
            ([0.0, 1.0, 1.0], [1.0, 0.0, 0.0]),
            ([1.0 / 3.0, 1.0, 1.0], [0.0, 1.0, 0.0]),
            ([2.0 / 3.0, 1.0, 0.5], [0.0, 0.0, 0.5]),
            ([0.5, 0.0, 0.4], [0.4, 0.4, 0.4]),
        ];
        for ([hue, saturation, value], expected) in corners {
            let rgb = rgb_from_hsv(hue, saturation, value);
            assert!(rgb.iter().zip(expected).all(|(channel, exact)| (channel - exact).abs() < 1e-5), "{rgb:?}");
        }
    }

    #[test]
    fn ramp_is_continuous_and_in_range() {
        let mut stream = Stream::new(Purpose::Scene, 3, 0);
        for _ in 0..50 {
            let palette = Palette::sample(&mut stream);
            let ramp = Ramp::sample(&palette, &mut stream);
            let at = |value| ramp.colour(Sample { value, chroma: [0.0; 2] });
            for step in 0..100_u8 {
                let value = f32::from(step) / 100.0;
                let (here, next) = (at(value), at(value + 1e-4));
                for c in 0..3 {
                    assert!((0.0..=1.0).contains(&here[c]));
                    assert!((here[c] - next[c]).abs() < 1e-2);
                }
            }
        }
    }
}
