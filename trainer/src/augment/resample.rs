//! Separable resampling as matrix products: one small matrix an image and axis.
//!
//! A crop, its resizing and a flip are one matrix along each axis; so is a Gaussian blur. That
//! makes them exact (a triangle filter as wide as the reduction, as Pillow's), equally fast on
//! CPU and GPU, and free of loops over the batch.

use tch::{Device, Kind, Tensor};

/// `rows_y · image · rows_xᵀ` for every channel: images `[N, C, H, W]`, rows `[N, h, H]` and
/// `[N, w, W]` → `[N, C, h, w]`.
pub(super) fn apply(images: &Tensor, rows_y: &Tensor, rows_x: &Tensor) -> Tensor {
    rows_y.unsqueeze(1).matmul(images).matmul(&rows_x.unsqueeze(1).transpose(2, 3))
}

/// Rows that crop `[start, start + length)` of `input` pixels and resize it to `output` with an
/// antialiased bilinear filter: `[N, output, input]`. Mirrored where `flips` says so.
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
    let (start, length) = (tensor(starts), tensor(lengths));
    let at = Tensor::arange(output, (Kind::Float, device)).view([1, output, 1]) + 0.5;
    let at = match flips {
        Some(flips) => {
            let mirror = tensor(&flips.iter().map(|&flip| f32::from(flip)).collect::<Vec<_>>());
            &at + mirror * (output as f64 - 2.0 * &at)
        }
        None => at.expand([n, output, 1], false),
    };
    let centre = &start + at * (&length / output as f64); // [N, output, 1]
    let support = (&length / output as f64).clamp_min(1.0); // [N, 1, 1]
    let pixel = Tensor::arange(input, (Kind::Float, device)).view([1, 1, input]) + 0.5;
    let distance = ((&pixel - centre) / support).abs();
    let weight = (1_f64 - distance).clamp_min(0.0); // [N, output, input]
    // Pixels outside the window do not exist for the resizing. A window narrower than a pixel
    // still sees the pixel it lies in.
    let inside = pixel.gt_tensor(&(&start - 0.5)).logical_and(&pixel.lt_tensor(&(start + length + 0.5)));
    let weight = weight * inside.to_kind(Kind::Float);
    &weight / weight.sum_dim_intlist([2].as_slice(), true, Kind::Float).clamp_min(1e-6)
}

/// Rows of a Gaussian blur with reflected borders, `[N, size, size]`; σ = 0 leaves an image as it is.
pub(super) fn blur_rows(sigmas_px: &[f32], size: i64, device: Device) -> Tensor {
    let n = sigmas_px.len() as i64;
    // Far below a pixel, the Gaussian is 1 at its centre and 0 at every other pixel.
    let sigma = Tensor::from_slice(sigmas_px).view([n, 1, 1]).to_device(device).clamp_min(0.02);
    let at = Tensor::arange(size, (Kind::Float, device)).view([1, size, 1]);
    let pixel = Tensor::arange(size, (Kind::Float, device)).view([1, 1, size]);
    let gauss = |distance: &Tensor| ((distance / &sigma).square() * -0.5).exp();
    let last = size as f64 - 1.0;
    let left = gauss(&(&at + &pixel)) * pixel.gt(0.0); // pixel i seen again at −i
    let right = gauss(&(&at + &pixel - 2.0 * last)) * pixel.lt(last); // and at 2(size − 1) − i
    let weight = gauss(&(&at - &pixel)) + left + right;
    &weight / weight.sum_dim_intlist([2].as_slice(), true, Kind::Float)
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
    fn nothing_outside_the_window_is_seen() {
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
