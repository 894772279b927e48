//! Feature maps as colours: their first three principal components as red, green and blue.

use image::RgbImage;
use image::imageops::FilterType;
use tch::{Device, Kind, Tensor};

use super::{encode, pixels, square, tile};
use crate::augment::Normalization;
use crate::network::normalize;

/// Standard deviations of a component between the middle of the colour scale and its ends.
const REACH: f64 = 2.0;

/// A component that varies less than this share of the first is not scaled up further, which would
/// show noise.
const FLOOR: f64 = 0.1;

/// Standard deviation of unit-length features below which they count as equal.
const COLLAPSED: f64 = 1e-6;

/// Draws normalised images `[N, 3, H, W]` beside their feature maps `[N, C_i, h_i, w_i]`: a row an
/// image, a column a map, squares of `side_px`. Cells stay visible as squares.
pub fn principal_components(images: &Tensor, maps: &[&Tensor], side_px: u32) -> RgbImage {
    let colours: Vec<_> = maps.iter().map(|map| principal_colours(map)).collect(); // [N, 3, h, w] each
    let row = |index: i64| {
        let image = pixels(&images.get(index), &Normalization::IMAGENET);
        let mut row = vec![square(&image, side_px, FilterType::Triangle)];
        row.extend(colours.iter().map(|map| square(&encode(&map.get(index)), side_px, FilterType::Nearest)));
        row
    };
    tile(&(0..images.size()[0]).map(row).collect::<Vec<_>>(), side_px)
}

/// Feature maps `[N, C, h, w]` → colours `[N, 3, h, w]` in [0, 1], on the CPU.
///
/// The components are those of all cells of all images together, of unit length as in the
/// matching, so equal features have equal colours wherever they are.
///
/// # Panics
/// If the tensor has another number of dimensions.
pub fn principal_colours(map: &Tensor) -> Tensor {
    tch::no_grad(|| {
        let (n, channels, height, width) = map.size4().expect("maps are [N, C, h, w]");
        let cells = normalize(&map.to_device(Device::Cpu).to_kind(Kind::Double).flatten(2, 3)); // [N, C, L]
        let rows = cells.transpose(1, 2).reshape([-1, channels]).nan_to_num(0.0, 0.0, 0.0); // [N·L, C]
        let scores = scores(&(&rows - rows.mean_dim([0].as_slice(), true, Kind::Double))); // [N·L, 3]
        let deviation = (&scores * &scores).mean_dim([0].as_slice(), true, Kind::Double).sqrt(); // [1, 3]
        let least = deviation.max().double_value(&[]) * FLOOR;
        let colours = scores / (deviation.clamp_min(least.max(COLLAPSED)) * (2.0 * REACH)) + 0.5; // [N·L, 3]
        let colours = colours.clamp(0.0, 1.0).view([n, height, width, 3]); // [N, h, w, 3]
        colours.permute([0, 3, 1, 2]).to_kind(Kind::Float) // [N, 3, h, w]
    })
}

/// Centred rows `[M, C]` along their first three principal axes: `[M, 3]`.
fn scores(rows: &Tensor) -> Tensor {
    let (count, channels) = rows.size2().expect("rows are [M, C]");
    // The eigenvectors of the smaller of the two products are enough, and cheaper.
    let small = if channels <= count { rows.tr().matmul(rows) } else { rows.matmul(&rows.tr()) }; // [K, K], K = min(M, C)
    let Ok((values, vectors)) = small.f_linalg_eigh("L") else {
        return Tensor::zeros([count, 3], (Kind::Double, Device::Cpu));
    };
    let found = values.size()[0].min(3);
    let largest = |x: &Tensor, dim: i64| x.narrow(dim, x.size()[dim as usize] - found, found).flip([dim]);
    let (values, vectors) = (largest(&values, 0), largest(&vectors, 1)); // [3], [K, 3]
    let scores = if channels <= count { rows.matmul(&vectors) } else { vectors * values.clamp_min(0.0).sqrt() }; // [M, 3]
    // The sign of an axis is arbitrary: the largest score becomes positive, so that colours seldom flip
    // between steps.
    let largest = scores.gather(0, &scores.abs().argmax(0, true), false); // [1, 3]
    let scores = scores * (largest.ge(0.0).to_kind(Kind::Double) * 2.0 - 1.0);
    scores.constant_pad_nd([0, 3 - found]) // [M, 3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: (Kind, Device) = (Kind::Float, Device::Cpu);

    /// Maps `[2, channels, 4, 4]` whose cell (1, 2) of the second image has the feature of the
    /// first cell of the first.
    fn maps(channels: i64) -> Tensor {
        tch::manual_seed(3);
        let map = Tensor::randn([2, channels, 4, 4], CPU);
        let cell = |image, y, x| map.get(image).narrow(1, y, 1).narrow(2, x, 1);
        cell(1, 1, 2).copy_(&(cell(0, 0, 0) * 3.0));
        map
    }

    #[test]
    fn equal_directions_have_equal_colours_across_images() {
        for channels in [8, 64] {
            let colours = principal_colours(&maps(channels));
            assert_eq!(colours.size(), [2, 3, 4, 4]);
            let cell = |image, y, x| colours.get(image).narrow(1, y, 1).narrow(2, x, 1);
            assert!((cell(1, 1, 2) - cell(0, 0, 0)).abs().max().double_value(&[]) < 1e-6);
            assert!((cell(1, 1, 1) - cell(0, 0, 0)).abs().max().double_value(&[]) > 1e-2);
            assert!(colours.min().double_value(&[]) >= 0.0 && colours.max().double_value(&[]) <= 1.0);
        }
    }

    #[test]
    fn both_products_give_the_same_components() {
        tch::manual_seed(4);
        let rows = Tensor::randn([12, 6], (Kind::Double, Device::Cpu));
        let rows = &rows - rows.mean_dim([0].as_slice(), true, Kind::Double);
        // The same rows with channels that are zero: more channels than rows.
        let wide = rows.constant_pad_nd([0, 14]);
        assert!((scores(&rows) - scores(&wide)).abs().max().double_value(&[]) < 1e-9);
    }

    #[test]
    fn a_collapsed_map_is_grey_and_so_is_one_that_is_not_a_number() {
        for value in [1.0, f64::NAN] {
            let colours = principal_colours(&Tensor::full([2, 8, 4, 4], value, CPU));
            assert!((colours - 0.5).abs().max().double_value(&[]) < 1e-6);
        }
        assert_eq!(principal_colours(&Tensor::randn([1, 2, 2, 2], CPU)).size(), [1, 3, 2, 2], "of two channels");
    }

    #[test]
    fn the_picture_has_a_row_an_image_and_a_column_a_map() {
        let images = Tensor::zeros([2, 3, 32, 32], CPU);
        let picture = principal_components(&images, &[&maps(8), &maps(16)], 40);
        assert_eq!(picture.dimensions(), (3 * 40 + 2 * super::super::GAP_PX, 2 * 40 + super::super::GAP_PX));
    }
}
