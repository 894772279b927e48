//! Position of a leaf in a view: the map between their coordinates and what follows from it.

use crate::shape::{Outline, RelativePoint};
use crate::similarity::Similarity;

/// Map between a view's points, in image units, and the points of a leaf's own frame.
pub(crate) trait Pose {
    /// The leaf's point that a point of the view shows.
    fn leaf_point(&self, view: [f32; 2]) -> [f32; 2];

    /// The leaf's point in the coordinates of an outline.
    fn locate(&self, outline: &Outline, point: [f32; 2]) -> RelativePoint;

    /// The smallest upright box of the view around an upright box of the leaf's frame; both are
    /// left, top, right, bottom.
    fn view_box(&self, leaf_box: [f32; 4]) -> [f32; 4];

    /// Length in the leaf's frame of a line one unit long in the view.
    fn factor(&self) -> f32;

    /// The leaf's direction that points the same way as a direction of the world, equally long.
    fn leaf_direction(&self, world: [f32; 2]) -> [f32; 2];
}

/// The pose of a single picture: leaf and view share a frame.
pub(crate) struct AtRest;

impl Pose for AtRest {
    #[inline]
    fn leaf_point(&self, view: [f32; 2]) -> [f32; 2] {
        view
    }

    #[inline]
    fn locate(&self, outline: &Outline, [x, y]: [f32; 2]) -> RelativePoint {
        outline.locate(x, y)
    }

    fn view_box(&self, leaf_box: [f32; 4]) -> [f32; 4] {
        leaf_box
    }

    fn factor(&self) -> f32 {
        1.0
    }

    fn leaf_direction(&self, world: [f32; 2]) -> [f32; 2] {
        world
    }
}

/// The pose of a leaf that moves in front of a moving camera.
#[derive(Debug, Clone)]
pub(crate) struct Moved {
    leaf_from_view: Similarity,
    view_from_leaf: Similarity,
    /// A turn alone.
    leaf_from_world: Similarity,
}

impl Moved {
    /// The pose where the camera maps the world to the view and the motion maps the leaf to the world.
    pub(crate) fn new(view_from_world: &Similarity, world_from_leaf: &Similarity) -> Self {
        let view_from_leaf = world_from_leaf.then(view_from_world);
        let leaf_from_world = world_from_leaf.inverse();
        Self { leaf_from_view: view_from_leaf.inverse(), view_from_leaf, leaf_from_world }
    }

    /// From the view's image units to the leaf's.
    pub(crate) fn leaf_from_view(&self) -> &Similarity {
        &self.leaf_from_view
    }

    /// From the leaf's image units to the view's.
    pub(crate) fn view_from_leaf(&self) -> &Similarity {
        &self.view_from_leaf
    }
}

impl Pose for Moved {
    #[inline]
    fn leaf_point(&self, view: [f32; 2]) -> [f32; 2] {
        self.leaf_from_view.apply(view.map(f64::from)).map(|coordinate| coordinate as f32)
    }

    /// The outline's box cuts off what sticks out of it, here as in a picture at rest, where nothing
    /// outside of the box is looked at.
    #[inline]
    fn locate(&self, outline: &Outline, [x, y]: [f32; 2]) -> RelativePoint {
        let point = outline.locate(x, y);
        let [left, top, right, bottom] = outline.bounds(0.0);
        let outside = (left - x).max(x - right).max(top - y).max(y - bottom) / outline.radius();
        RelativePoint { distance: point.distance.max(outside), ..point }
    }

    fn view_box(&self, [left, top, right, bottom]: [f32; 4]) -> [f32; 4] {
        let corners = [[left, top], [right, top], [left, bottom], [right, bottom]];
        let seen = corners.map(|corner| self.view_from_leaf.apply(corner.map(f64::from)).map(|c| c as f32));
        seen.iter().fold([f32::MAX, f32::MAX, f32::MIN, f32::MIN], |[l, t, r, b], &[x, y]| {
            [l.min(x), t.min(y), r.max(x), b.max(y)]
        })
    }

    fn factor(&self) -> f32 {
        self.leaf_from_view.factor() as f32
    }

    fn leaf_direction(&self, world: [f32; 2]) -> [f32; 2] {
        let turned = self.leaf_from_world.apply_to_direction(world.map(f64::from));
        turned.map(|part| (part / self.leaf_from_world.factor()) as f32)
    }
}
