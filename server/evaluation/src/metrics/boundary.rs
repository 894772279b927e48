//! Boundary accuracy of masks.

use densecl_vision::image::ImageSize;

/// The labels of two masks of one size, row by row.
#[derive(Clone, Copy, Debug)]
pub struct MaskPair<'a> {
    /// The labels to measure.
    pub found: &'a [u8],
    /// The true labels.
    pub truth: &'a [u8],
    /// Size of both masks.
    pub size: ImageSize,
}

/// Largest distance between matching outlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundaryTolerance {
    radius_px: i64,
}

impl BoundaryTolerance {
    /// The tolerance of DAVIS: 0.8 % of the image's diagonal, rounded up to whole pixels.
    pub fn for_image(size: ImageSize) -> Self {
        let diagonal = f64::from(size.width).hypot(f64::from(size.height));
        Self { radius_px: (0.008 * diagonal).ceil() as i64 }
    }
}

/// Contour accuracy F of DAVIS (Perazzi et al., CVPR 2016, section 4.1): the harmonic mean of precision, the share of
/// `found`'s outline within the tolerance of `truth`'s, and recall, the reverse. It follows the code of the benchmark, not
/// the bipartite matching of the paper: outlines are dilated with a disk, and precision (recall) is 1 if `found` (`truth`)
/// has no outline.
pub fn boundary_f(MaskPair { found, truth, size }: MaskPair<'_>, label: u8, tolerance: BoundaryTolerance) -> f64 {
    let (found, truth) = (Outline::new(found, label, size), Outline::new(truth, label, size));
    let (precision, recall) = match (found.count(), truth.count()) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        (_, _) => (found.share_within(&truth.dilated(tolerance)), truth.share_within(&found.dilated(tolerance))),
    };
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

/// The outline of an object as a mask.
struct Outline {
    size: ImageSize,
    pixels: Vec<bool>,
}

impl Outline {
    /// The pixels that differ from their neighbour to the right, below, or diagonally below right. Pixels of the last row
    /// and column have fewer of these neighbours, the last pixel none.
    fn new(labels: &[u8], label: u8, size: ImageSize) -> Self {
        let (width, height) = (size.width as usize, size.height as usize);
        let is = |x: usize, y: usize| labels[y.min(height - 1) * width + x.min(width - 1)] == label;
        let on_outline = |index: usize| {
            let (x, y) = (index % width, index / width);
            [(x + 1, y), (x, y + 1), (x + 1, y + 1)].iter().any(|&(other_x, other_y)| is(other_x, other_y) != is(x, y))
        };
        Self { size, pixels: (0..width * height).map(on_outline).collect() }
    }

    fn count(&self) -> usize {
        self.pixels.iter().filter(|on| **on).count()
    }

    fn share_within(&self, other: &Self) -> f64 {
        let within = self.pixels.iter().zip(&other.pixels).filter(|(on, near)| **on && **near).count();
        within as f64 / self.count() as f64
    }

    /// The pixels within the tolerance of the outline.
    fn dilated(&self, tolerance: BoundaryTolerance) -> Self {
        let (width, height, radius) = (i64::from(self.size.width), i64::from(self.size.height), tolerance.radius_px);
        let mut pixels = vec![false; self.pixels.len()];
        for (index, _) in self.pixels.iter().enumerate().filter(|(_, on)| **on) {
            let (x, y) = (index as i64 % width, index as i64 / width);
            for down in -radius..=radius {
                let reach = ((radius * radius - down * down) as f64).sqrt() as i64;
                if (0..height).contains(&(y + down)) {
                    let row = (y + down) * width;
                    let (first, last) = ((x - reach).max(0), (x + reach).min(width - 1));
                    pixels[(row + first) as usize..=(row + last) as usize].fill(true);
                }
            }
        }
        Self { size: self.size, pixels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square of `side` pixels with its top left corner at `(left, top)`, in a picture of 40 × 30.
    fn square(left: usize, top: usize, side: usize) -> Vec<u8> {
        let inside = |x: usize, y: usize| (left..left + side).contains(&x) && (top..top + side).contains(&y);
        (0..40 * 30).map(|index| u8::from(inside(index % 40, index / 40))).collect()
    }

    const SIZE: ImageSize = ImageSize { width: 40, height: 30 };

    #[test]
    fn an_outline_has_the_hand_computed_length() {
        // A square of 4: the column left of it and the row above it (4 + 4 + 1 in the corner), its own last column and
        // row (4 + 4 - 1), and the two pixels beyond the ends of those, whose neighbours differ.
        let outline = Outline::new(&square(10, 10, 4), 1, SIZE);
        assert_eq!(outline.count(), 16);
        assert!(outline.pixels[9 * 40 + 9] && outline.pixels[13 * 40 + 13] && !outline.pixels[10 * 40 + 10]);
        // At the picture's border there is no outline on the outside.
        assert_eq!(Outline::new(&vec![1; 1200], 1, SIZE).count(), 0);
    }

    #[test]
    fn dilating_a_pixel_gives_a_disk() {
        let mut dot = Outline { size: SIZE, pixels: vec![false; 1200] };
        dot.pixels[15 * 40 + 20] = true;
        assert_eq!(dot.dilated(BoundaryTolerance { radius_px: 1 }).count(), 5);
        assert_eq!(dot.dilated(BoundaryTolerance { radius_px: 2 }).count(), 13);
        assert_eq!(dot.dilated(BoundaryTolerance { radius_px: 5 }).count(), 81);
    }

    #[test]
    fn only_a_shift_within_the_tolerance_is_perfect() {
        let one = BoundaryTolerance { radius_px: 1 };
        let truth = square(10, 10, 8);
        let f = |found: &[u8]| boundary_f(MaskPair { found, truth: &truth, size: SIZE }, 1, one);
        assert!((f(&square(10, 10, 8)) - 1.0).abs() < 1e-12);
        assert!((f(&square(11, 10, 8)) - 1.0).abs() < 1e-12);
        assert!((f(&square(13, 10, 8)) - 0.5).abs() < 1e-12);
        assert!((f(&square(25, 20, 8))).abs() < 1e-12);
        assert!(f(&[0; 1200]).abs() < 1e-12);
    }

    #[test]
    fn values_equal_those_of_the_davis_code() {
        // Computed by NumPy with the definitions of the DAVIS code (precision 13/36, recall 15/32; 13/25, 7/20).
        let f = |found: &[u8], truth: &[u8], radius_px| {
            boundary_f(MaskPair { found, truth, size: SIZE }, 1, BoundaryTolerance { radius_px })
        };
        assert!((f(&square(12, 13, 9), &square(10, 10, 8), 2) - 0.407_949_790_794_979).abs() < 1e-12);
        assert!((f(&square(28, 18, 12), &square(26, 17, 13), 1) - 0.418_390_804_597_701).abs() < 1e-12);
    }

    #[test]
    fn a_label_in_neither_mask_is_perfect() {
        let tolerance = BoundaryTolerance::for_image(ImageSize { width: 480, height: 360 });
        assert_eq!(tolerance.radius_px, 5);
        let mask = square(1, 1, 4);
        let masks = MaskPair { found: &mask, truth: &mask, size: SIZE };
        assert!((boundary_f(masks, 7, tolerance) - 1.0).abs() < 1e-12);
    }
}
