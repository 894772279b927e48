//! The matrix product that matching spends its time in.
//!
//! The kernels are the `gemm` crate's, chosen at run time by what the processor can do; `benches/matching.rs` compares
//! them with ndarray's.
#![expect(unsafe_code, reason = "`gemm` takes pointers and strides; this module is the only place that passes them")]

use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2};

/// Writes `one` times `other`, `[M, K]` · `[K, N]`, into `product`, `[M, N]`, on this thread alone. Any order of axes
/// will do.
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(one: &ArrayView2<'_, f32>, other: &ArrayView2<'_, f32>, product: &mut ArrayViewMut2<'_, f32>) {
    let ((rows, depth), (other_depth, columns)) = (one.dim(), other.dim());
    assert_eq!(depth, other_depth, "the factors of a product fit");
    assert_eq!(product.dim(), (rows, columns), "a product has the factors' outer sizes");
    let (one_strides, other_strides) = (one.strides(), other.strides());
    let (row_stride, column_stride) = (product.strides()[0], product.strides()[1]);
    // SAFETY: each pointer comes with its array's own shape and strides, so that every access is one that the array
    // allows: the sizes were just compared. The product is borrowed mutably, so that it overlaps with neither factor.
    unsafe {
        gemm::gemm(
            rows,
            columns,
            depth,
            product.as_mut_ptr(),
            column_stride,
            row_stride,
            false, // what was in the product is not read
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
        fn any_shape_and_order_gives_ndarrays_product(
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
            // What was there before, even if it is no number, leaves no trace.
            let mut product = ordered(m, n, transposed[2]).mapv_into(|_| f32::NAN);
            multiply(&one.view(), &other.view(), &mut product.view_mut());
            prop_assert_eq!(product, one.dot(&other));
        }
    }

    #[test]
    #[should_panic(expected = "fit")]
    fn other_sizes_are_refused() {
        let (one, other) = (Array2::zeros((2, 3)), Array2::zeros((4, 2)));
        multiply(&one.view(), &other.view(), &mut Array2::zeros((2, 2)).view_mut());
    }
}
