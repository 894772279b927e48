//! A scene whose objects move in front of a moving camera, with exact correspondences.
//!
//! Every leaf keeps a frame of its own, in which its outline and its textures never change; a
//! [`View`] says how those frames lie in one picture. A point of one picture is therefore carried to
//! another through the frame of the leaf that it shows, without any search or interpolation. What
//! shows at a point is the foremost leaf whose outline holds it: a hard decision at any real
//! coordinates, where a painted pixel may mix two leaves at an edge.
//!
//! Lengths are image units; a pixel's centre lies half a pixel from its corner.

use crate::ProceduralImages;
use crate::camera;
use crate::canvas::{Canvas, Frame};
use crate::colour::Rgb;
use crate::pose::Moved;
use crate::scene::{Leaf, Scene};
use crate::similarity::Similarity;
use crate::surface::Surface;
use crate::texture::Program;

/// Leaves from front to back, some of them parts of objects that move.
#[derive(Debug)]
pub(crate) struct Stage {
    layers: Vec<Layer>,
    background: Surface,
    pivots: Vec<[f64; 2]>,
}

#[derive(Debug)]
struct Layer {
    leaf: Leaf,
    bounds: [f32; 4],
    /// The object that the leaf moves with, from 1 on; 0 stands still.
    object: usize,
}

/// Poses of all objects in the camera's view at one moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// By object; the first is of what stands still.
    poses: Vec<Moved>,
}

/// The texture programs of every layer, and of the background at the end.
pub(crate) struct Programs(Vec<Vec<Program>>);

impl Stage {
    /// The scene that `source`'s seed and split give for `index`, `extent` image units wide and
    /// high, with so many objects.
    pub(crate) fn new(source: &ProceduralImages, index: u64, extent: [f32; 2], objects: u32) -> Self {
        let mut scene = Scene::with_objects(source.split, source.seed, index, extent, objects);
        let (mut layers, mut instances, mut pivots) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(leaf) = scene.next_leaf() {
            let object = if scene.in_object() {
                if instances.last() != Some(&leaf.instance) {
                    instances.push(leaf.instance);
                    pivots.push([0.0; 2]);
                }
                // The hindmost part is the body, about which the object turns.
                if let Some(pivot) = pivots.last_mut() {
                    *pivot = leaf.outline.centre().map(f64::from);
                }
                instances.len()
            } else {
                0
            };
            // With a soft edge it would be open where a leaf ends.
            let leaf = Leaf { softness: 0.0, instance: object as u16, ..leaf };
            layers.push(Layer { bounds: leaf.outline.bounds(0.0), leaf, object });
        }
        Self { layers, background: scene.background(), pivots }
    }

    /// The middle of each object in its own frame.
    pub(crate) fn pivots(&self) -> &[[f64; 2]] {
        &self.pivots
    }

    /// The texture programs, as fine as the views can show: the same for all, so that a point of a
    /// leaf has one colour in every view.
    pub(crate) fn prepare(&self, views: &[View], unit_px: f32) -> Programs {
        let pixel = |object: usize| {
            let factors = views.iter().map(|view| view.poses[object].leaf_from_view().factor() as f32);
            factors.fold(0.0, f32::max) / unit_px
        };
        let layers = self.layers.iter().map(|layer| layer.leaf.surface.prepare(pixel(layer.object)));
        Programs(layers.chain([self.background.prepare(pixel(0))]).collect())
    }

    /// The picture of a view before any camera: gamma-encoded RGB, `[height, width]`, not exposed.
    pub(crate) fn paint(&self, view: &View, programs: &Programs, frame: Frame) -> Vec<Rgb> {
        let mut canvas = Canvas::new(frame);
        for (layer, programs) in self.layers.iter().zip(&programs.0) {
            canvas.lay_leaf(&layer.leaf, &view.poses[layer.object], Some(programs));
        }
        canvas.lay_background(&self.background, &view.poses[0], programs.0.last().map(Vec::as_slice));
        canvas.colours().collect()
    }

    /// The object that a point of a view shows, from 1 on; 0 is what stands still.
    pub(crate) fn object_at(&self, view: &View, point: [f64; 2]) -> usize {
        let covers = |layer: &&Layer| {
            let place = view.poses[layer.object].leaf_from_view().apply(point);
            let [x, y] = place.map(|coordinate| coordinate as f32);
            let [left, top, right, bottom] = layer.bounds;
            let in_box = x > left && x < right && y > top && y < bottom;
            in_box && layer.leaf.outline.locate(x, y).distance < 0.0
        };
        self.layers.iter().find(covers).map_or(0, |layer| layer.object)
    }

    #[cfg(test)]
    pub(crate) fn without_shadows(mut self) -> Self {
        self.layers.iter_mut().for_each(|layer| layer.leaf.shadow = None);
        self
    }
}

impl View {
    /// The view of a camera that maps the world to the picture, with the objects where `objects` map
    /// their own frames to the world. What stands still has the world for its frame.
    pub(crate) fn new(camera: &Similarity, objects: &[Similarity]) -> Self {
        let motions = [Similarity::IDENTITY].into_iter().chain(objects.iter().copied());
        Self { poses: motions.map(|motion| Moved::new(camera, &motion)).collect() }
    }

    /// Position in `other` of the object's point.
    pub(crate) fn carry(&self, other: &Self, object: usize, point: [f64; 2]) -> [f64; 2] {
        let place = self.poses[object].leaf_from_view().apply(point);
        other.poses[object].view_from_leaf().apply(place)
    }
}

/// The factor that exposes a painted picture as a camera would.
pub(crate) fn exposure(colours: &[Rgb]) -> f32 {
    camera::automatic_exposure(colours)
}
