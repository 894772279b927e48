//! The matrix product, which takes most of the time of matching and of principal components.
//!
//! The kernels are those of the crate `gemm`, which chooses them at run time by the processor's features.
//! `benches/matching.rs` compares them with ndarray's.
#![expect(unsafe_code, reason = "`gemm` takes pointers and strides; this module is the only place that passes them")]

use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Writes `one · other`, `[M, K] · [K, N]`, to `product`, `[M, N]`, on the calling thread. Arrays of any strides are
/// accepted.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(one: &ArrayView2<'_, f32>, other: &ArrayView2<'_, f32>, product: &mut ArrayViewMut2<'_, f32>) {
    let ((rows, depth), (other_depth, columns)) = (one.dim(), other.dim());
    assert_eq!(depth, other_depth, "the inner sizes of the factors must be equal");
    assert_eq!(product.dim(), (rows, columns), "the product must have the outer sizes of the factors");
    let (one_strides, other_strides) = (one.strides(), other.strides());
    let (row_stride, column_stride) = (product.strides()[0], product.strides()[1]);
    // SAFETY: each pointer is passed with the shape and strides of its own array, and the sizes were compared above, so
    // every access is inside its array. The product is borrowed mutably, so it overlaps with neither factor.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            product.as_mut_ptr(),
            column_stride,
            row_stride,
            false, // the old values of the product are not read
            one.as_ptr(),
            one_strides[1],
            one_strides[0],
            other.as_ptr(),
            other_strides[1],
            other_strides[0],
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, s};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_shape_and_strides_give_ndarrays_product(
            (m, k, n) in (1_usize..40, 1_usize..40, 1_usize..40), transposed: [bool; 3], seed: u8,
        ) {
            let value = |(row, column): (usize, usize)| ((row * 31 + column * 17 + usize::from(seed)) % 23) as f32 - 11.0;
            let ordered = |rows: usize, columns: usize, transposed: bool| {
                if transposed {
                    Array2::from_shape_fn((columns, rows), value).reversed_axes()
                } else {
                    // Every other column of a wider array: neither axis is contiguous.
                    Array2::from_shape_fn((rows, 2 * columns), value).slice_move(s![.., ..;2])
                }
            };
            let (one, other) = (ordered(m, k, transposed[0]), ordered(k, n, transposed[1]));
            // Old values of the product, even NaN, have no effect.
            let mut product = ordered(m, n, transposed[2]).mapv_into(|_| f32::NAN);
            multiply(&one.view(), &other.view(), &mut product.view_mut());
            prop_assert_eq!(product, one.dot(&other));
        }
    }

    #[test]
    #[should_panic(expected = "inner sizes")]
    fn factors_that_do_not_fit_are_refused() {
        let (one, other) = (Array2::zeros((2, 3)), Array2::zeros((4, 2)));
        multiply(&one.view(), &other.view(), &mut Array2::zeros((2, 2)).view_mut());
    }
}
