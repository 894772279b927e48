//! The directions of largest variance of centred descriptors.
//!
//! Few directions are found by subspace iteration with a Rayleigh-Ritz step (Golub and Van Loan, *Matrix Computations*,
//! 4th edition, sections 8.2.4 and 8.3), whose work is mostly matrix products. For more than about half of all
//! directions the whole eigendecomposition of the covariance is cheaper, and exact.

use nalgebra::{DMatrix, DVector, SymmetricEigen};
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::product::multiply;

const MAX_ITERATIONS: usize = 30;
/// Most steps of the eigensolver for each eigenvalue; it usually takes two or three.
const MAX_SWEEPS: usize = 100;
/// Least cells of the blocks that [`through`] multiplies at a time.
const MIN_BLOCK_CELLS: usize = 512;
/// Most blocks, the products of all of which are in memory.
const MAX_BLOCKS: usize = 16;
/// The iteration ends when no requested variance changes by more than this share of the largest.
const TOLERANCE: f64 = 1e-6;

/// Size of the iterated subspace: more than `count` directions, so that it converges in fewer iterations.
const fn oversampled(count: usize) -> usize {
    count + count / 4 + 8
}

/// The `count` (1 to C) directions of largest variance of `centred`, `[C, N]`: rows of length 1, `[count, C]`, by falling
/// variance, and the variances.
pub(super) fn leading_directions(centred: &Array2<f32>, count: usize) -> (Array2<f32>, Vec<f32>) {
    let channels = centred.nrows();
    let size = oversampled(count);
    let (directions, variances) = if 2 * size >= channels {
        sorted_eigen(&covariance(centred))
    } else {
        subspace_iteration(centred, count, size)
    };
    let variances = variances.iter().take(count).map(|&variance| variance as f32).collect();
    (directions.slice_move(s![..count, ..]), variances)
}

/// About how many bytes of memory products without the covariance take, for `count` directions of `channels` channels.
pub(super) const fn product_bytes(count: usize, channels: usize) -> usize {
    const FLOAT_BYTES: usize = 4;
    oversampled(count) * (MAX_BLOCKS + 1) * channels * FLOAT_BYTES
}

fn subspace_iteration(centred: &Array2<f32>, count: usize, size: usize) -> (Array2<f32>, Vec<f64>) {
    let products = CovarianceProducts::new(centred, size);
    let mut basis = start(size, centred.nrows()); // [size, C]
    orthonormalize(&mut basis);
    let mut variances = vec![0.0; size];
    for _ in 0..MAX_ITERATIONS {
        let image = products.with_covariance(&basis); // [size, C]
        let (rotation, values) = sorted_eigen(&image.dot(&basis.t())); // [size, size]
        let changes = values.iter().zip(&variances).take(count).map(|(new, old)| (new - old).abs());
        let change = changes.fold(0.0, f64::max);
        variances = values;
        if change <= TOLERANCE * variances[0].abs() {
            basis = rotation.dot(&basis);
            break;
        }
        // Two products a step, because they cost less than the Rayleigh-Ritz step and the orthonormalization.
        basis = products.with_covariance(&rotation.dot(&image));
        orthonormalize(&mut basis);
    }
    (basis, variances)
}

/// Products of a basis with the covariance of centred descriptors, by the cheaper of two ways.
enum CovarianceProducts<'a> {
    /// The covariance itself, `[C, C]`.
    Formed(Array2<f32>),
    /// The centred descriptors, `[C, N]`, which are multiplied twice.
    Through(&'a Array2<f32>),
}

impl<'a> CovarianceProducts<'a> {
    fn new(centred: &'a Array2<f32>, size: usize) -> Self {
        /// Usual number of products.
        const USUAL: usize = 8;
        let (channels, cells) = centred.dim();
        let formed = channels * channels * (cells + USUAL * size);
        let through = USUAL * 2 * channels * cells * size;
        if formed < through { Self::Formed(covariance(centred)) } else { Self::Through(centred) }
    }

    /// `basis` times the covariance, both `[size, C]`.
    fn with_covariance(&self, basis: &Array2<f32>) -> Array2<f32> {
        match self {
            Self::Formed(covariance) => product(&basis.view(), &covariance.view()),
            Self::Through(centred) => through(basis, centred),
        }
    }
}

/// `basis`, `[size, C]`, times the covariance of `centred`, `[C, N]`, without forming it. Blocks of cells are multiplied
/// twice while a processor's cache holds them, and their products are added in order, so that the result does not depend on
/// the threads.
fn through(basis: &Array2<f32>, centred: &Array2<f32>) -> Array2<f32> {
    let cells = centred.ncols();
    let block_cells = MIN_BLOCK_CELLS.max(cells.div_ceil(MAX_BLOCKS));
    let of_block = |index: usize| {
        let block = centred.slice(s![.., index * block_cells..cells.min((index + 1) * block_cells)]);
        product(&product(&basis.view(), &block).view(), &block.t())
    };
    let products: Vec<_> = (0..cells.div_ceil(block_cells)).into_par_iter().map(of_block).collect();
    let sum = products.into_iter().reduce(|sum, next| sum + next).expect("a map has cells");
    sum / cells as f32
}

/// The covariance, `[C, C]`.
fn covariance(centred: &Array2<f32>) -> Array2<f32> {
    const BLOCK_ROWS: usize = 64;
    let (channels, cells) = centred.dim();
    let mut covariance = Array2::zeros((channels, channels));
    let rows = covariance.as_slice_mut().expect("it was just made").par_chunks_mut(BLOCK_ROWS * channels);
    rows.enumerate().for_each(|(index, rows)| {
        let count = rows.len() / channels;
        let mut rows = ArrayViewMut2::from_shape((count, channels), rows).expect("whole rows");
        let first = index * BLOCK_ROWS;
        multiply(&centred.slice(s![first..first + count, ..]), &centred.t(), &mut rows);
    });
    covariance / cells as f32
}

fn product(one: &ArrayView2<'_, f32>, other: &ArrayView2<'_, f32>) -> Array2<f32> {
    let mut product = Array2::zeros((one.nrows(), other.ncols()));
    multiply(one, other, &mut product.view_mut());
    product
}

/// The eigenvectors of a symmetric matrix as rows, by falling eigenvalue, and the eigenvalues. Computed in double
/// precision.
fn sorted_eigen(symmetric: &Array2<f32>) -> (Array2<f32>, Vec<f64>) {
    let size = symmetric.nrows();
    let mean = |row, column| 0.5 * (f64::from(symmetric[[row, column]]) + f64::from(symmetric[[column, row]]));
    // Products of values near the end of float32's range are not finite, and the solver would not converge on them.
    let finite = |row, column| Some(mean(row, column)).filter(|value| value.is_finite()).unwrap_or(0.0);
    let matrix = DMatrix::from_fn(size, size, finite);
    let eigen = SymmetricEigen::try_new(matrix, f64::EPSILON, MAX_SWEEPS * size).unwrap_or_else(|| SymmetricEigen {
        eigenvectors: DMatrix::identity(size, size),
        eigenvalues: DVector::zeros(size),
    });
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    let vectors = Array2::from_shape_fn((size, size), |(row, entry)| eigen.eigenvectors[(entry, order[row])] as f32);
    (vectors, order.iter().map(|&index| eigen.eigenvalues[index]).collect())
}

/// Fixed pseudo-random numbers, `[size, C]`: every direction has a part in the start, and every run gives equal results.
fn start(size: usize, channels: usize) -> Array2<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    Array2::from_shape_simple_fn((size, channels), || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / ((1_u64 << 24) as f32) - 0.5
    })
}

/// Gram-Schmidt on the rows, done twice because of float32's precision. A row in the span of the rows before it, which
/// happens if the map has fewer dimensions than requested, is replaced by the first unit vector that is not in it.
fn orthonormalize(basis: &mut Array2<f32>) {
    let mut next_axis = 0;
    for index in 0..basis.nrows() {
        loop {
            let (before, mut rest) = basis.view_mut().split_at(Axis(0), index);
            let mut row = rest.row_mut(0);
            let length = row.dot(&row).sqrt();
            for _ in 0..2 {
                let overlaps: Array1<f32> = before.dot(&row); // [index]
                for (other, overlap) in before.rows().into_iter().zip(&overlaps) {
                    row.scaled_add(-overlap, &other);
                }
            }
            let remaining = row.dot(&row).sqrt();
            if remaining > 1e-4 * length && remaining.is_normal() {
                row.mapv_inplace(|value| value / remaining);
                break;
            }
            if next_axis == row.len() {
                break;
            }
            row.fill(0.0);
            row[next_axis] = 1.0;
            next_axis += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Descriptors whose variances fall by a quarter from one axis to the next, in a rotated frame.
    fn falling(channels: usize, cells: usize) -> Array2<f32> {
        let mut axes = start(channels, channels);
        orthonormalize(&mut axes);
        let mut amounts = start(channels, cells);
        for (index, mut row) in amounts.rows_mut().into_iter().enumerate() {
            row *= 0.75_f32.powf(index as f32 / 2.0);
        }
        let descriptors = axes.t().dot(&amounts);
        let mean = descriptors.mean_axis(Axis(1)).unwrap();
        descriptors - mean.insert_axis(Axis(1))
    }

    #[test]
    fn products_of_blocks_are_those_of_the_whole_on_any_number_of_threads() {
        for cells in [1, 511, 512, 513, 1_100, 9_000] {
            let centred = falling(70, cells);
            let mut basis = start(5, 70);
            orthonormalize(&mut basis);
            let whole = basis.dot(&(centred.dot(&centred.t()) / cells as f32));
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let blocks = through(&basis, &centred);
            assert_eq!(blocks, alone.install(|| through(&basis, &centred)), "{cells}");
            let formed = covariance(&centred);
            assert_eq!(formed, alone.install(|| covariance(&centred)), "{cells}");
            for found in [blocks, basis.dot(&formed)] {
                assert!((&found - &whole).iter().all(|difference| difference.abs() < 1e-5), "{cells}");
            }
        }
    }

    #[test]
    fn the_iteration_agrees_with_the_whole_decomposition() {
        for (channels, cells) in [(120, 300), (120, 40)] {
            let centred = falling(channels, cells);
            let (exact, expected) = sorted_eigen(&covariance(&centred));
            for count in [1, 3, 20] {
                let (directions, variances) = subspace_iteration(&centred, count, oversampled(count));
                for index in 0..count {
                    assert!((variances[index] - expected[index]).abs() < 1e-5 * expected[0], "{index} of {count}");
                    let cosine = directions.row(index).dot(&exact.row(index)).abs();
                    assert!(cosine > 0.99, "{index} of {count}: {cosine}");
                }
            }
        }
    }

    #[test]
    fn values_without_finite_products_give_unit_directions() {
        let (directions, variances) = leading_directions(&(falling(30, 50) * 1e30), 2);
        assert_eq!((directions.dim(), variances.len()), ((2, 30), 2));
        assert!(directions.rows().into_iter().all(|row| (row.dot(&row) - 1.0).abs() < 1e-5), "{directions}");
        assert!(variances.iter().all(|variance| variance.is_finite()), "{variances:?}");
    }

    #[test]
    fn rows_are_orthonormal_even_if_some_are_zero() {
        let mut basis = Array2::zeros((4, 5));
        basis[[1, 2]] = 3.0;
        orthonormalize(&mut basis);
        let gram = basis.dot(&basis.t());
        assert!((gram - Array2::<f32>::eye(4)).iter().all(|error| error.abs() < 1e-6));
    }
}
