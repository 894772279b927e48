//! Sequences of six views of one painted plane, in the `HPatches` layout.

use std::path::Path;

use rayon::prelude::*;

use super::photometry::Photometry;
use super::size::Size;
use super::view::Painting;
use super::{Summary, SynthError, make_folder, numbered, write_file};
use crate::random::{Purpose, Stream};
use crate::{Frame, ProceduralImages};
use densecl_vision::homography::Homography;

/// Views of a sequence, the reference included.
const VIEWS: usize = 6;
/// Painted pixels per pixel of the reference view, so that enlarged views stay sharp.
const PAINTED_PX_PER_VIEW_PX: f64 = 2.0;
/// One sequence in so many changes the light only.
const LIGHT_ONLY_EVERY: usize = 4;
/// Tangent of half of 25 degrees.
const LARGEST_HALF_TANGENT: f32 = 0.221_69;
/// Largest change of depth from a view's middle to its border.
const LARGEST_LEAN: f32 = 0.12;
/// Largest shift, in widths or heights of the view.
const LARGEST_SHIFT: f32 = 0.1;

/// Writes `count` sequences into `folder`.
pub(super) fn write_all(
    source: &ProceduralImages,
    seed: u64,
    size: Size,
    count: usize,
    folder: &Path,
) -> Result<Summary, SynthError> {
    (0..count).into_par_iter().try_for_each(|index| {
        let sequence = Sequence::sample(seed, index, size);
        let letter = if sequence.light_only { 'i' } else { 'v' };
        let target = folder.join(format!("{letter}_{}", numbered(index, count)));
        make_folder(&target)?;
        sequence.write(source, &target)
    })?;
    Ok(Summary { images: VIEWS * count, sequences: count })
}

/// Positions and photometry of six cameras, before anything is painted.
#[derive(Debug)]
struct Sequence {
    index: usize,
    size: Size,
    light_only: bool,
    /// From the reference view to each view; the first is the identity.
    from_reference: Vec<Homography>,
    photometry: Vec<Photometry>,
    stream: Stream,
}

impl Sequence {
    fn sample(seed: u64, index: usize, size: Size) -> Self {
        let mut stream = Stream::new(Purpose::Sequence, seed, index as u64);
        let light_only = index % LIGHT_ONLY_EVERY == LIGHT_ONLY_EVERY - 1;
        let mut from_reference = vec![Homography::IDENTITY];
        let mut photometry = vec![Photometry::NONE];
        for _ in 1..VIEWS {
            let (map, strength) =
                if light_only { (Homography::IDENTITY, 1.6) } else { (viewpoint(size, &mut stream), 1.0) };
            from_reference.push(map);
            photometry.push(Photometry::sample(strength, &mut stream));
        }
        Self { index, size, light_only, from_reference, photometry, stream }
    }

    fn write(mut self, source: &ProceduralImages, target: &Path) -> Result<(), SynthError> {
        let plane = Plane::around(&self.from_reference, self.size);
        let colours = source.paint(self.index as u64, plane.frame(self.size));
        let painting = Painting { width_px: plane.width_px, height_px: plane.height_px, colours };
        let cameras = self.from_reference.iter().zip(&self.photometry).enumerate();
        for (view, (map, photometry)) in cameras {
            let mut picture = plane.view(&painting, map, self.size);
            photometry.apply(&mut picture, &mut self.stream);
            write_file(&target.join(format!("{}.ppm", view + 1)), &picture.to_ppm())?;
            if view > 0 {
                let path = target.join(format!("H_1_{}", view + 1));
                write_file(&path, map.to_string().as_bytes())?;
            }
        }
        Ok(())
    }
}

/// A random map from the reference view's pixels to another view's: up to 25 degrees of turn, a scale
/// of 0.8 to 1.25, a mild lean and a shift, about the middle of the view.
fn viewpoint(size: Size, stream: &mut Stream) -> Homography {
    let (width, height) = (f64::from(size.width_px), f64::from(size.height_px));
    let (cx, cy) = (0.5 * (width - 1.0), 0.5 * (height - 1.0));
    let mut within = |limit: f32| f64::from(stream.range(-limit, limit));
    let rotation = Homography::rotation(within(LARGEST_HALF_TANGENT));
    let lean = Homography::perspective(within(LARGEST_LEAN) / (0.5 * width), within(LARGEST_LEAN) / (0.5 * height));
    let shift = Homography::translation(cx + within(LARGEST_SHIFT) * width, cy + within(LARGEST_SHIFT) * height);
    let scale = f64::from(stream.log_range(0.8, 1.25));
    Homography::translation(-cx, -cy)
        .then(&rotation)
        .then(&Homography::scaling(scale))
        .then(&lean)
        .then(&shift)
        .normalized()
}

/// The part of the plane that some view shows, and its grid of painted pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Plane {
    /// Reference-view coordinates of the middle of the first painted pixel.
    origin: [f64; 2],
    width_px: usize,
    height_px: usize,
}

impl Plane {
    /// The smallest plane that every view's pixels, edges included, lie on.
    fn around(from_reference: &[Homography], size: Size) -> Self {
        let (right, bottom) = (f64::from(size.width_px) - 0.5, f64::from(size.height_px) - 0.5);
        let corners = [[-0.5, -0.5], [right, -0.5], [-0.5, bottom], [right, bottom]];
        // Straight lines stay straight, so the corners bound the whole view.
        let seen = from_reference.iter().flat_map(|map| {
            let back = inverse(map);
            corners.map(|corner| back.project_unchecked(corner))
        });
        let (mut low, mut high) = ([f64::MAX; 2], [f64::MIN; 2]);
        for point in seen {
            for axis in 0..2 {
                low[axis] = low[axis].min(point[axis].floor());
                high[axis] = high[axis].max(point[axis].ceil());
            }
        }
        let painted = |axis: usize| ((high[axis] - low[axis]) * PAINTED_PX_PER_VIEW_PX) as usize + 1;
        Self { origin: low, width_px: painted(0), height_px: painted(1) }
    }

    /// One image unit is the shorter side of a view, as in a single picture.
    fn frame(&self, size: Size) -> Frame {
        let unit_px = PAINTED_PX_PER_VIEW_PX as f32 * size.width_px.min(size.height_px) as f32;
        Frame { width_px: self.width_px, height_px: self.height_px, unit_px }
    }

    /// From the reference view's pixels to painted pixels.
    fn painted_from_reference(&self) -> Homography {
        Homography::translation(-self.origin[0], -self.origin[1]).then(&Homography::scaling(PAINTED_PX_PER_VIEW_PX))
    }

    /// The painting as seen by the camera at `map` (from the reference view).
    fn view(&self, painting: &Painting, map: &Homography, size: Size) -> Painting {
        painting.view(&inverse(map).then(&self.painted_from_reference()), size)
    }
}

fn inverse(map: &Homography) -> Homography {
    map.inverse().expect("a viewpoint is made of invertible maps")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { width_px: 120, height_px: 90 };

    #[test]
    fn every_view_lies_on_the_plane() {
        for index in 0..60 {
            let sequence = Sequence::sample(5, index, SIZE);
            let plane = Plane::around(&sequence.from_reference, SIZE);
            for map in &sequence.from_reference {
                let to_plane = inverse(map).then(&plane.painted_from_reference());
                for corner in [[-0.5, -0.5], [119.5, -0.5], [-0.5, 89.5], [119.5, 89.5]] {
                    let [x, y] = to_plane.project_unchecked(corner);
                    assert!(x >= 0.0 && x <= plane.width_px as f64 - 1.0);
                    assert!(y >= 0.0 && y <= plane.height_px as f64 - 1.0);
                }
            }
            assert!(plane.width_px < 3 * 2 * 120 && plane.height_px < 3 * 2 * 120);
        }
    }

    /// Paints soft dots at known places of the reference view, takes every view, and compares the
    /// dots' centroids with where the homography says that they are.
    #[test]
    fn homographies_hold_for_the_pixels() {
        let dots = [[20.0, 15.0], [60.3, 44.8], [97.6, 70.2], [25.5, 68.0], [95.0, 21.0]];
        let mut seen = 0;
        for index in [0, 1, 2, 3, 4] {
            let sequence = Sequence::sample(8, index, SIZE);
            let plane = Plane::around(&sequence.from_reference, SIZE);
            let painting = paint_dots(&plane, &dots);
            for map in &sequence.from_reference {
                let view = plane.view(&painting, map, SIZE);
                for &dot in &dots {
                    let expected = map.project_unchecked(dot);
                    if let Some(found) = centroid(&view, expected) {
                        let error = (found[0] - expected[0]).hypot(found[1] - expected[1]);
                        assert!(error < 0.02, "{index}: {found:?} and not {expected:?}");
                        seen += 1;
                    }
                }
            }
        }
        assert!(seen > 100, "only {seen} dots in view");
    }

    fn paint_dots(plane: &Plane, dots: &[[f64; 2]]) -> Painting {
        let to_plane = plane.painted_from_reference();
        let (width_px, height_px) = (plane.width_px, plane.height_px);
        let mut colours = vec![[0.0_f32; 3]; width_px * height_px];
        for (at, colour) in colours.iter_mut().enumerate() {
            let (x, y) = ((at % width_px) as f64, (at / width_px) as f64);
            for &dot in dots {
                let [cx, cy] = to_plane.project_unchecked(dot);
                let squared = (x - cx).powi(2) + (y - cy).powi(2);
                *colour = colour.map(|channel| channel + (-squared / 8.0).exp() as f32);
            }
        }
        Painting { width_px, height_px, colours }
    }

    /// Centroid of the brightness within 7 pixels of `near`; `None` at the view's border.
    fn centroid(view: &Painting, near: [f64; 2]) -> Option<[f64; 2]> {
        let inside = |position: f64, length: usize| position > 8.0 && position < length as f64 - 9.0;
        if !inside(near[0], view.width_px) || !inside(near[1], view.height_px) {
            return None;
        }
        let (mut sum, mut total) = ([0.0; 2], 0.0);
        for (at, colour) in view.colours.iter().enumerate() {
            let (x, y) = ((at % view.width_px) as f64, (at / view.width_px) as f64);
            if (x - near[0]).hypot(y - near[1]) < 7.0 {
                let weight = f64::from(colour[0]);
                sum = [sum[0] + weight * x, sum[1] + weight * y];
                total += weight;
            }
        }
        Some(sum.map(|moment| moment / total))
    }
}
