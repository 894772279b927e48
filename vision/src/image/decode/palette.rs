//! Palettes of GIF and BMP files.

/// The colours of all indices, as Pillow has them. Without a palette, or with one of the first levels of grey, an index is
/// a level of grey; an index that another palette lacks is black.
pub(super) fn all_colors(palette: &[[u8; 3]]) -> [[u8; 3]; 256] {
    let is_grey = (0..=255_u8).zip(palette).all(|(index, color)| *color == [index; 3]);
    std::array::from_fn(|index| match palette.get(index) {
        Some(color) => *color,
        None if is_grey => [index as u8; 3],
        None => [0; 3],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_levels_of_grey_go_on() {
        assert_eq!(all_colors(&[])[200], [200; 3]);
        assert_eq!(all_colors(&[[0; 3], [1; 3]])[200], [200; 3]);
        let inverted = all_colors(&[[255; 3], [0; 3]]);
        assert_eq!((inverted[0], inverted[1], inverted[2]), ([255; 3], [0; 3], [0; 3]));
    }
}
