//! Pictures of what a network sees: pure functions from tensors to images.
//!
//! Coordinates as everywhere: `(0, 0)` is the centre of the top-left pixel, and the centre of cell
//! `j` of `gw` on an image `width` pixels wide lies at `x = (j + 0.5)·width/gw − 0.5`.

mod canvas;
mod fixed_images;
mod matched_cells;
mod principal_components;

use image::imageops::FilterType;
use image::{Rgb, RgbImage, imageops};
use tch::{Device, Kind, Tensor};

use crate::augment::Normalization;

pub use fixed_images::FixedImages;
pub use matched_cells::{CellMatches, MatchedCellsOptions, matched_cells};
pub use principal_components::{principal_colours, principal_components};

/// Between the parts of a picture; neither too bright on a dark page nor too dark on a bright one.
const GAP: Rgb<u8> = Rgb([128; 3]);

/// Width of the gaps, in pixels.
const GAP_PX: u32 = 6;

/// A normalised image `[3, H, W]` as its pixels.
fn pixels(image: &Tensor, normalization: &Normalization) -> RgbImage {
    let image = image.detach().to_device(Device::Cpu).to_kind(Kind::Float); // [3, H, W]
    let channels = |values: &[f32; 3]| Tensor::from_slice(values).view([3, 1, 1]);
    encode(&(image * channels(&normalization.std) + channels(&normalization.mean)))
}

/// RGB `[3, H, W]` in [0, 1] as pixels.
fn encode(image: &Tensor) -> RgbImage {
    let size = image.size();
    let bytes = (image.clamp(0.0, 1.0) * 255.0).round().permute([1, 2, 0]).to_kind(Kind::Uint8); // [H, W, 3]
    let bytes = Vec::<u8>::try_from(bytes.contiguous().view([-1])).expect("a flat tensor of bytes");
    RgbImage::from_raw(size[2] as u32, size[1] as u32, bytes).expect("three bytes for every pixel")
}

/// An image enlarged or reduced to a square of `side_px`.
fn square(image: &RgbImage, side_px: u32, filter: FilterType) -> RgbImage {
    imageops::resize(image, side_px, side_px, filter)
}

/// Squares of `side_px` in rows and columns, with gaps between them.
fn tile(rows: &[Vec<RgbImage>], side_px: u32) -> RgbImage {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let span = |count: u32| (count * (side_px + GAP_PX)).saturating_sub(GAP_PX).max(1);
    let mut picture = RgbImage::from_pixel(span(columns), span(rows.len() as u32), GAP);
    for (y, row) in (0_u32..).zip(rows) {
        for (x, part) in (0_u32..).zip(row) {
            let at = |index: u32| i64::from(index * (side_px + GAP_PX));
            imageops::replace(&mut picture, part, at(x), at(y));
        }
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalisation_is_undone() {
        let colour = Tensor::from_slice(&[0.2_f32, 0.4, 0.6]).view([1, 3, 1, 1]).expand([1, 3, 4, 5], false);
        let normalised = Normalization::IMAGENET.apply(&colour).get(0);
        let image = pixels(&normalised, &Normalization::IMAGENET);
        assert_eq!(image.dimensions(), (5, 4));
        assert!(image.pixels().all(|pixel| *pixel == Rgb([51, 102, 153])));
    }

    #[test]
    fn tiles_stand_in_a_grid() {
        let part = |value| RgbImage::from_pixel(4, 4, Rgb([value; 3]));
        let picture = tile(&[vec![part(1), part(2)], vec![part(3), part(4)]], 4);
        assert_eq!(picture.dimensions(), (4 + GAP_PX + 4, 4 + GAP_PX + 4));
        assert_eq!(*picture.get_pixel(4 + GAP_PX, 0), Rgb([2; 3]));
        assert_eq!(*picture.get_pixel(0, 4 + GAP_PX), Rgb([3; 3]));
        assert_eq!(*picture.get_pixel(4, 0), GAP);
    }
}
