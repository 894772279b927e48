//! Averaging of features over an image and its mirror image.

use super::FeatureMap;

/// The mean of `map` and `of_mirrored`, both `[C, H, W]`, where `of_mirrored` holds the features of the mirror image and
/// is mirrored back first.
///
/// # Panics
/// If their shapes differ.
#[must_use]
pub fn flip_average(map: FeatureMap, of_mirrored: &FeatureMap) -> FeatureMap {
    assert_eq!(
        (map.channels(), map.grid()),
        (of_mirrored.channels(), of_mirrored.grid()),
        "both maps must have the same shape"
    );
    let (channels, grid) = (map.channels(), map.grid());
    let mut data = map.into_data();
    for (row, mirrored) in data.chunks_exact_mut(grid.width).zip(of_mirrored.data().chunks_exact(grid.width)) {
        for (value, other) in row.iter_mut().zip(mirrored.iter().rev()) {
            *value = f32::midpoint(*value, *other);
        }
    }
    FeatureMap::new(channels, grid.height, grid.width, data).expect("the shape did not change")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_image_is_mirrored_back() {
        let map = FeatureMap::new(1, 2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let mirrored = FeatureMap::new(1, 2, 3, vec![5.0, 4.0, 3.0, 0.0, 0.0, 0.0]).unwrap();
        assert_eq!(flip_average(map, &mirrored).data(), [2.0, 3.0, 4.0, 2.0, 2.5, 3.0]);
    }
}
