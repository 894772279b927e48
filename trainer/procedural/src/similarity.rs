//! Turns, scalings and shifts of the plane.

/// The map `z ↦ axes · z + shift` of points as complex numbers: a turn, a scale and a shift.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Similarity {
    axes: [f64; 2],
    shift: [f64; 2],
}

impl Similarity {
    /// Leaves every point where it is.
    pub(crate) const IDENTITY: Self = Self { axes: [1.0, 0.0], shift: [0.0, 0.0] };

    /// Moves by `shift`.
    pub(crate) fn translation(shift: [f64; 2]) -> Self {
        Self { shift, ..Self::IDENTITY }
    }

    /// Scales about the origin by a positive factor, and turns about it by twice the angle whose
    /// tangent is `half_tangent` (clockwise with y downwards); no trigonometric function is needed,
    /// so the map is the same on every machine.
    pub(crate) fn turned(half_tangent: f64, factor: f64) -> Self {
        let norm = factor / (1.0 + half_tangent * half_tangent);
        let axes = [norm * (1.0 - half_tangent * half_tangent), norm * 2.0 * half_tangent];
        Self { axes, shift: [0.0; 2] }
    }

    /// This map first, then `next`.
    #[must_use]
    pub(crate) fn then(&self, next: &Self) -> Self {
        Self { axes: product(next.axes, self.axes), shift: next.apply(self.shift) }
    }

    /// The map back. Every map made by this module has one, since no factor is 0.
    #[must_use]
    pub(crate) fn inverse(&self) -> Self {
        let square = self.axes[0] * self.axes[0] + self.axes[1] * self.axes[1];
        let axes = [self.axes[0] / square, -self.axes[1] / square];
        let [x, y] = product(axes, self.shift);
        Self { axes, shift: [-x, -y] }
    }

    /// Image of a point.
    #[inline]
    pub(crate) fn apply(&self, point: [f64; 2]) -> [f64; 2] {
        let [x, y] = product(self.axes, point);
        [x + self.shift[0], y + self.shift[1]]
    }

    /// Length of the image of a line one unit long.
    pub(crate) fn factor(&self) -> f64 {
        (self.axes[0] * self.axes[0] + self.axes[1] * self.axes[1]).sqrt()
    }

    /// Image of a direction: turned and scaled, not shifted.
    pub(crate) fn apply_to_direction(&self, direction: [f64; 2]) -> [f64; 2] {
        product(self.axes, direction)
    }
}

#[inline]
fn product(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_half_tangent_of_one_is_a_quarter_turn() {
        let [x, y] = Similarity::turned(1.0, 2.0).apply([1.0, 0.0]);
        assert!(x.abs() < 1e-15 && (y - 2.0).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn maps_compose_and_invert(
            turn in -1.0..1.0_f64, factor in 0.5..2.0_f64, dx in -2.0..2.0_f64, dy in -2.0..2.0_f64,
            x in -2.0..2.0_f64, y in -2.0..2.0_f64,
        ) {
            let (turned, moved) = (Similarity::turned(turn, factor), Similarity::translation([dx, dy]));
            let both = turned.then(&moved);
            let steps = moved.apply(turned.apply([x, y]));
            let at_once = both.apply([x, y]);
            let back = both.inverse().apply(at_once);
            for axis in 0..2 {
                prop_assert!((steps[axis] - at_once[axis]).abs() < 1e-12);
                prop_assert!((back[axis] - [x, y][axis]).abs() < 1e-12);
            }
            prop_assert!((both.factor() - factor).abs() < 1e-12);
        }
    }
}
