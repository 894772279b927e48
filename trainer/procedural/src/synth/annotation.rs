//! Annotations of a picture's figures: masks, boxes and areas of their visible parts.

use super::size::Size;
use crate::{Category, FigurePicture};

/// A figure of which fewer pixels are seen is not annotated.
const SMALLEST_PX: usize = 64;
/// Nor is one of which a smaller share is seen: hidden parts are what its category lies in.
const SMALLEST_SHARE: f64 = 0.4;
/// Less than this share hidden by others is not called occluded.
const OCCLUDED_SHARE: f64 = 0.05;

/// Label of pixels that belong to no category for sure.
const VOID: u8 = 255;

/// One annotated figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) category: Category,
    /// The figure's number in the picture, from 1 on.
    pub(super) instance: u16,
    /// First and last column that show it, from 0 on.
    pub(super) columns: [u32; 2],
    /// First and last row that show it, from 0 on.
    pub(super) rows: [u32; 2],
    /// Pixels that show it.
    pub(super) area_px: usize,
    /// `true` if the border of the picture cuts it off.
    pub(super) truncated: bool,
    /// `true` if other figures hide some of it.
    pub(super) occluded: bool,
}

/// The figures of which enough is seen, from front to back.
pub(super) fn objects(drawn: &FigurePicture, size: Size) -> Vec<Object> {
    let none = ([u32::MAX, 0], [u32::MAX, 0], 0);
    let mut extents = vec![none; drawn.figures.len() + 1];
    let instances = drawn.picture.instances.chunks_exact(size.width_px as usize);
    for (y, row) in (0_u32..).zip(instances) {
        for (x, &instance) in (0_u32..).zip(row) {
            let (columns, rows, area_px) = &mut extents[usize::from(instance)];
            *columns = [columns[0].min(x), columns[1].max(x)];
            *rows = [rows[0].min(y), rows[1].max(y)];
            *area_px += 1;
        }
    }
    let figures = (1_u16..).zip(&drawn.figures).zip(&extents[1..]);
    figures
        .filter(|((_, figure), (_, _, area_px))| {
            *area_px >= SMALLEST_PX && *area_px as f64 >= SMALLEST_SHARE * figure.whole_px as f64
        })
        .map(|((instance, figure), &(columns, rows, area_px))| {
            let inside = (figure.whole_px - figure.cut_px) as f64;
            Object {
                category: figure.category,
                instance,
                columns,
                rows,
                area_px,
                truncated: figure.cut_px > 0,
                occluded: (area_px as f64) < (1.0 - OCCLUDED_SHARE) * inside,
            }
        })
        .collect()
}

/// A value for each pixel: `label` of the object that it shows, 0 for the backdrop, and 255 along
/// every border of a figure and on figures that are not annotated.
pub(super) fn label_map(
    drawn: &FigurePicture,
    size: Size,
    objects: &[Object],
    label: impl Fn(usize, &Object) -> u8,
) -> Vec<u8> {
    let mut labels = vec![VOID; drawn.figures.len() + 1];
    labels[0] = 0;
    for (index, object) in objects.iter().enumerate() {
        labels[usize::from(object.instance)] = label(index, object);
    }
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let instances = &drawn.picture.instances;
    let at_border = |x: usize, y: usize| {
        let here = instances[y * width + x];
        let rows = y.saturating_sub(1)..=(y + 1).min(height - 1);
        rows.into_iter().any(|row| {
            let columns = x.saturating_sub(1)..=(x + 1).min(width - 1);
            columns.into_iter().any(|column| instances[row * width + column] != here)
        })
    };
    let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
    let value = |(x, y)| if at_border(x, y) { VOID } else { labels[usize::from(instances[y * width + x])] };
    pixels.map(value).collect()
}

/// Lengths of the runs of other pixels and of this instance's, in turn and down the columns, as
/// COCO's run-length encoding has them.
pub(super) fn run_lengths(instances: &[u16], size: Size, instance: u16) -> Vec<u32> {
    let (width, height) = (size.width_px as usize, size.height_px as usize);
    let (mut runs, mut length, mut inside) = (Vec::new(), 0, false);
    for x in 0..width {
        for y in 0..height {
            if (instances[y * width + x] == instance) != inside {
                runs.push(length);
                length = 0;
                inside = !inside;
            }
            length += 1;
        }
    }
    runs.push(length);
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProceduralImages;

    const SIZE: Size = Size { width_px: 120, height_px: 90 };

    fn drawn(index: u64) -> FigurePicture {
        ProceduralImages::new(6, 90).render_figures(index, SIZE.frame())
    }

    #[test]
    fn boxes_are_tight_and_small_rests_are_left_out() {
        let mut left_out = 0;
        for index in 0..60 {
            let drawn = drawn(index);
            let objects = objects(&drawn, SIZE);
            left_out += drawn.figures.len() - objects.len();
            for object in &objects {
                let shown = |x: u32, y: u32| drawn.picture.instances[(y * 120 + x) as usize] == object.instance;
                let pixels: Vec<(u32, u32)> =
                    (0..90).flat_map(|y| (0..120).map(move |x| (x, y))).filter(|&(x, y)| shown(x, y)).collect();
                assert_eq!(pixels.len(), object.area_px);
                assert!(object.area_px >= SMALLEST_PX);
                assert_eq!(pixels.iter().map(|p| p.0).min(), Some(object.columns[0]));
                assert_eq!(pixels.iter().map(|p| p.0).max(), Some(object.columns[1]));
                assert_eq!(pixels.iter().map(|p| p.1).min(), Some(object.rows[0]));
                assert_eq!(pixels.iter().map(|p| p.1).max(), Some(object.rows[1]));
            }
        }
        assert!(left_out > 0, "no figure was too small");
    }

    #[test]
    fn label_maps_hold_categories_and_void_at_borders() {
        for index in 0..20 {
            let drawn = drawn(index);
            let objects = objects(&drawn, SIZE);
            let labels = label_map(&drawn, SIZE, &objects, |_, object| object.category.number());
            let mut seen = vec![0; objects.len()];
            for (&label, &instance) in labels.iter().zip(&drawn.picture.instances) {
                let object = objects.iter().position(|object| object.instance == instance);
                let expected = match object {
                    Some(at) => objects[at].category.number(),
                    None if instance == 0 => 0,
                    None => VOID,
                };
                assert!(label == expected || label == VOID);
                if let Some(at) = object.filter(|_| label != VOID) {
                    seen[at] += 1;
                }
            }
            for (seen, object) in seen.iter().zip(&objects).filter(|(_, object)| object.area_px > 400) {
                assert!(seen * 5 > object.area_px, "{object:?}: {seen} left beside the border");
            }
        }
    }

    #[test]
    fn runs_rebuild_the_mask() {
        let drawn = drawn(0);
        for instance in 0..=drawn.figures.len() as u16 {
            let runs = run_lengths(&drawn.picture.instances, SIZE, instance);
            let columns: Vec<bool> =
                runs.iter().enumerate().flat_map(|(i, &length)| vec![i % 2 == 1; length as usize]).collect();
            assert_eq!(columns.len(), 120 * 90);
            for (at, &shown) in drawn.picture.instances.iter().enumerate() {
                assert_eq!(columns[at % 120 * 90 + at / 120], shown == instance);
            }
        }
    }
}
