//! Separable resampling as matrix products: one small matrix an image and axis.
//!
//! A crop, its resizing and a flip are one matrix along each axis; so is a Gaussian blur. That
//! makes them exact (a triangle filter as wide as the reduction, as Pillow's), equally fast on
//! CPU and GPU, and free of loops over the batch.
//!
//! Results have the shape `[N, C, H, W]` over memory in the order `[N, H, C, W]`, in which a
//! product along either axis is one batched product of contiguous matrices: the rows `[N, h, H]`
//! with `[N, H, C·W]`, or `[N, H·C, W]` with the columns `[N, W, w]`.

use tch::{Device, Kind, Tensor};

/// `rows_y · image · rows_xᵀ` for every channel: images `[N, C, H, W]`, rows `[N, h, H]` and
/// `[N, w, W]` → `[N, C, h, w]`.
pub(super) fn apply(images: &Tensor, rows_y: &Tensor, rows_x: &Tensor) -> Tensor {
    let (n, c, height, width) = images.size4().expect("images have four axes");
    let x = images.transpose(1, 2).reshape([n, height, c * width]); // [N, H, C·W]
    apply_x(&rows_y.bmm(&x).view([n, -1, c, width]), rows_x) // [N, C, h, w]
}

/// Applies both to uint8 canvases `[N, H, W, C]`, whose values become [0, 1].
pub(super) fn apply_to_canvases(canvases: &Tensor, rows_y: &Tensor, rows_x: &Tensor) -> Tensor {
    let (n, height, width, c) = canvases.size4().expect("canvases have four axes");
    let x = canvases.to_kind(Kind::Float).view([n, height, width * c]); // [N, H, W·C]
    // Scaling the rows is cheaper than scaling the images.
    let x = (rows_y / 255.0).bmm(&x).view([n, -1, width, c]); // [N, h, W, C]
    apply_x(&x.transpose(2, 3), rows_x) // [N, C, h, w]
}

/// `[N, h, C, W]` and rows `[N, w, W]` → `[N, C, h, w]`.
fn apply_x(x: &Tensor, rows_x: &Tensor) -> Tensor {
    let (n, height, c, width) = x.size4().expect("images have four axes");
    let x = x.reshape([n, height * c, width]).bmm(&rows_x.transpose(1, 2)); // [N, h·C, w]
    x.view([n, height, c, -1]).transpose(1, 2) // [N, C, h, w]
}

/// Rows that crop `[start, start + length)` of `input` pixels and resize it to `output` with an
/// antialiased bilinear filter: `[N, output, input]`. Mirrored where `flips` is `true`.
pub(super) fn crop_rows(
    starts: &[f32],
    lengths: &[f32],
    flips: Option<&[bool]>,
    input: i64,
    output: i64,
    device: Device,
) -> Tensor {
    let n = starts.len() as i64;
    let tensor = |values: &[f32]| Tensor::from_slice(values).view([n, 1, 1]).to_device(device);
    let (start, length) = (tensor(starts), tensor(lengths)); // [N, 1, 1]
    let at = Tensor::arange(output, (Kind::Float, device)).view([1, output, 1]) + 0.5; // [1, output, 1]
    let at = match flips {
        Some(flips) => {
            let mirror = tensor(&flips.iter().map(|&flip| f32::from(flip)).collect::<Vec<_>>());
            &at + mirror * (output as f64 - 2.0 * &at)
        }
        None => at.expand([n, output, 1], false),
    };
    let centre = &start + at * (&length / output as f64); // [N, output, 1]
    let support = (&length / output as f64).clamp_min(1.0); // [N, 1, 1]
    let pixel = Tensor::arange(input, (Kind::Float, device)).view([1, 1, input]) + 0.5; // [1, 1, input]
    // Pixels outside the window have no weight. A window narrower than a pixel keeps the pixel in which
    // it lies.
    let inside = pixel.gt_tensor(&(&start - 0.5)).logical_and(&pixel.lt_tensor(&(start + length + 0.5)));
    // A triangle of any height: the rows are divided by their sums.
    let mut weight = support - (&pixel - centre).abs_(); // [N, output, input]
    let _ = weight.clamp_min_(0.0);
    weight *= inside.to_kind(Kind::Float);
    let sum = weight.sum_dim_intlist([2].as_slice(), true, Kind::Float); // [N, output, 1]
    weight / sum.clamp_min(1e-6) // [N, output, input]
}

/// Below this a weight is 0: it adds nothing to a float32, and denormal numbers are slow.
const LEAST_WEIGHT: f64 = 1e-12;

/// Rows of a Gaussian blur with reflected borders, `[N, size, size]`; σ = 0 leaves an image as it is.
///
/// Row i weighs pixel j by g(i − j), and by what is seen of it again beyond either border, at −j
/// and at 2(size − 1) − j. All three depend on i − j or i + j alone, so that they are windows that
/// slide along a table of g.
pub(super) fn blur_rows(sigmas_px: &[f32], size: i64, device: Device) -> Tensor {
    let n = sigmas_px.len() as i64;
    // Far below a pixel, the Gaussian is 1 at its centre and 0 at every other pixel.
    let sigma = Tensor::from_slice(sigmas_px).view([n, 1]).to_device(device).clamp_min(0.02);
    let distance = Tensor::arange(2 * size - 1, (Kind::Float, device)).view([1, -1]);
    let gauss = ((distance / sigma).square_() * -0.5).exp_().threshold(LEAST_WEIGHT, 0.0); // [N, 2·size − 1]
    let both_sides = Tensor::cat(&[gauss.narrow(1, 1, size - 1).flip([1]), gauss.narrow(1, 0, size)], 1);
    let slide = |table: &Tensor| table.unfold(1, size, 1); // [N, size, size]
    let pixel = Tensor::arange(size, (Kind::Float, device)).view([1, 1, size]);
    let mut weight = slide(&both_sides).flip([1]);
    weight += slide(&gauss) * pixel.gt(0.0); // the border pixels themselves are seen once
    weight += slide(&gauss.flip([1])) * pixel.lt(size as f64 - 1.0);
    let sum = weight.sum_dim_intlist([2].as_slice(), true, Kind::Float); // [N, output, 1]
    weight / sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(rows: &Tensor, i: i64) -> Vec<f32> {
        let row = rows.get(0).get(i).contiguous();
        Vec::try_from(&row).unwrap()
    }

    #[test]
    fn halving_weighs_four_pixels() {
        let rows = crop_rows(&[0.0], &[8.0], None, 8, 4, Device::Cpu);
        // A triangle of half-width 2 around pixel edge 4: distances 1.5, 0.5, 0.5, 1.5.
        let expected = [0.0, 0.125, 0.375, 0.375, 0.125, 0.0, 0.0, 0.0];
        for (found, expected) in row(&rows, 1).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn pixels_outside_the_window_have_no_influence() {
        let rows = crop_rows(&[2.0], &[3.0], None, 8, 6, Device::Cpu);
        for i in 0..6 {
            let row = row(&rows, i);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(row[..2].iter().chain(&row[5..]).all(|&weight| weight == 0.0), "{row:?}");
        }
    }

    #[test]
    fn a_blur_keeps_the_mean_of_a_flat_image_and_spreads_a_dot() {
        let rows = blur_rows(&[1.0], 9, Device::Cpu);
        assert!(row(&rows, 0).iter().sum::<f32>() - 1.0 < 1e-6);
        let row = row(&rows, 4);
        assert!((row[4] - 0.3989).abs() < 1e-3 && (row[5] - 0.2420).abs() < 1e-3, "{row:?}");
        let none = blur_rows(&[0.0], 9, Device::Cpu);
        assert!((none.get(0) - Tensor::eye(9, (Kind::Float, Device::Cpu))).abs().max().double_value(&[]) < 1e-6);
    }
}
