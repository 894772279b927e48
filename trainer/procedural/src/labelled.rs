//! Pictures of figures whose categories, masks and boxes are known.

use crate::camera::Camera;
use crate::canvas::{Canvas, Frame};
use crate::scene::Figure;
use crate::scene::Scene;
use crate::{Category, Picture, ProceduralImages};

/// A picture of figures; instance `i` is `figures[i - 1]`, and 0 is everything else.
#[derive(Debug, Clone)]
pub(crate) struct FigurePicture {
    pub(crate) picture: Picture,
    pub(crate) figures: Vec<FigureExtent>,
}

/// Extent of a figure, hidden parts included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FigureExtent {
    pub(crate) category: Category,
    /// Pixels inside the outline, also those outside of the picture.
    pub(crate) whole_px: usize,
    /// Pixels of the figure outside the picture.
    pub(crate) cut_px: usize,
}

impl ProceduralImages {
    /// Picture `index` of the figures, another than picture `index` of the scenes.
    pub(crate) fn render_figures(&self, index: u64, frame: Frame) -> FigurePicture {
        let extent = [frame.width_px, frame.height_px].map(|side| side as f32 / frame.unit_px);
        let mut scene = Scene::with_figures(self.split, self.seed, index, extent);
        let canvas = Canvas::paint(&mut scene, frame);
        let mut pixels = vec![0; 3 * frame.width_px * frame.height_px];
        // The complement keeps this camera apart from that of the scene with the same index.
        Camera::sample(!self.seed, self.split.key(index)).develop(&canvas, frame, &mut pixels);
        let figures = scene.figures().iter().map(|figure| measure(figure, frame)).collect();
        FigurePicture { picture: Picture { pixels, instances: canvas.instances() }, figures }
    }
}

fn measure(figure: &Figure, frame: Frame) -> FigureExtent {
    let pixel = 1.0 / frame.unit_px;
    let [left, top, right, bottom] = figure.outline.bounds(0.0).map(|edge| (edge * frame.unit_px).floor() as i64);
    let (mut whole_px, mut cut_px) = (0, 0);
    for y in top..=bottom {
        for x in left..=right {
            let (px, py) = ((x as f32 + 0.5) * pixel, (y as f32 + 0.5) * pixel);
            if figure.outline.locate(px, py).distance < 0.0 {
                whole_px += 1;
                let inside = (0..frame.width_px as i64).contains(&x) && (0..frame.height_px as i64).contains(&y);
                cut_px += usize::from(!inside);
            }
        }
    }
    FigureExtent { category: figure.category, whole_px, cut_px }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Split;

    const FRAME: Frame = Frame { width_px: 96, height_px: 72, unit_px: 72.0 };

    #[test]
    fn visible_pixels_are_some_of_the_whole_figure() {
        let images = ProceduralImages::new(4, 72);
        let (mut figures, mut hidden) = (0, 0);
        for index in 0..40 {
            let drawn = images.render_figures(index, FRAME);
            assert_eq!(drawn.picture.pixels.len(), 3 * 96 * 72);
            for (number, figure) in drawn.figures.iter().enumerate() {
                let visible = drawn.picture.instances.iter().filter(|id| usize::from(**id) == number + 1).count();
                let inside = figure.whole_px - figure.cut_px;
                // An edge pixel may go to the figure or to what lies behind.
                assert!(visible <= inside + inside / 20 + 12, "{index} {figure:?}: {visible} visible");
                figures += 1;
                hidden += usize::from(visible * 10 < inside * 9);
            }
            assert!(drawn.picture.instances.iter().all(|id| usize::from(*id) <= drawn.figures.len()));
        }
        assert!(figures > 80, "{figures} figures");
        assert!(hidden > 5 && hidden * 2 < figures, "{hidden} of {figures} figures are partly hidden");
    }

    #[test]
    fn every_category_is_drawn_in_both_splits() {
        for split in [Split::Train, Split::HeldOut] {
            let images = ProceduralImages::new(1, 72).with_split(split);
            let mut categories: Vec<Category> =
                (0..40).flat_map(|index| images.render_figures(index, FRAME).figures).map(|f| f.category).collect();
            categories.sort();
            categories.dedup();
            assert_eq!(categories, Category::ALL);
        }
    }
}
