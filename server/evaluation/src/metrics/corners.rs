//! The corner error of an estimated homography.

use densecl_vision::features::PixelPoint;
use densecl_vision::homography::Homography;
use densecl_vision::image::ImageSize;

/// The mean distance, in pixels of the target, between the images of the four corner pixels' centres under `estimate` and
/// under `truth`, for a source of size `source` (`DeTone` et al., *`SuperPoint`*, CVPRW 2018, equation 19). Infinite if one of
/// them has no image, see [`Homography::project`].
pub fn mean_corner_error(estimate: &Homography, truth: &Homography, source: ImageSize) -> f64 {
    let (right, bottom) = (f64::from(source.width) - 1.0, f64::from(source.height) - 1.0);
    let distance = |[x, y]: [f64; 2]| {
        let corner = PixelPoint { x, y };
        let (Some(found), Some(expected)) = (estimate.project(corner), truth.project(corner)) else {
            return f64::INFINITY;
        };
        (found.x - expected.x).hypot(found.y - expected.y)
    };
    [[0.0, 0.0], [right, 0.0], [0.0, bottom], [right, bottom]].map(distance).iter().sum::<f64>() / 4.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corners_move_by_hand_computed_distances() {
        let size = ImageSize { width: 101, height: 51 };
        let parse = |text: &str| text.parse::<Homography>().unwrap();
        let identity = parse("1 0 0 0 1 0 0 0 1");
        assert!(mean_corner_error(&identity, &identity, size).abs() < 1e-12);
        assert!((mean_corner_error(&parse("1 0 3 0 1 4 0 0 1"), &identity, size) - 5.0).abs() < 1e-12);
        // A stretch of 1 % moves only the right corners, by 1 px each.
        assert!((mean_corner_error(&parse("1.01 0 0 0 1 0 0 0 1"), &identity, size) - 0.5).abs() < 1e-12);
        // The right corners go behind the camera.
        assert!(mean_corner_error(&parse("1 0 0 0 1 0 -0.02 0 1"), &identity, size).is_infinite());
    }
}
