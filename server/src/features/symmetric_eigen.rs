//! Eigenvalues and eigenvectors of small symmetric matrices.

use ndarray::{Array2, Axis};

const MAX_SWEEPS: usize = 60;

/// Eigenvalues of the symmetric `matrix`, falling, and the eigenvectors as columns in the same order. Cyclic Jacobi
/// rotations (Golub and Van Loan, *Matrix Computations*, 8.5): for matrices of a few dozen rows.
pub(super) fn symmetric_eigen(mut matrix: Array2<f64>) -> (Vec<f64>, Array2<f64>) {
    let size = matrix.nrows();
    let mut vectors = Array2::eye(size);
    let scale = matrix.iter().map(|value| value * value).sum::<f64>();
    for _ in 0..MAX_SWEEPS {
        let off_diagonal: f64 =
            matrix.indexed_iter().filter(|((row, column), _)| row != column).map(|(_, value)| value * value).sum();
        // Also when nothing makes sense.
        if off_diagonal <= 1e-28 * scale || off_diagonal.is_nan() {
            break;
        }
        for row in 0..size {
            for column in row + 1..size {
                rotate(&mut matrix, &mut vectors, row, column);
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[[b, b]].total_cmp(&matrix[[a, a]]));
    let values = order.iter().map(|&index| matrix[[index, index]]).collect();
    (values, vectors.select(Axis(1), &order))
}

/// Makes the entry at (`p`, `q`) zero.
fn rotate(matrix: &mut Array2<f64>, vectors: &mut Array2<f64>, p: usize, q: usize) {
    let entry = matrix[[p, q]];
    if entry == 0.0 {
        return;
    }
    let theta = (matrix[[q, q]] - matrix[[p, p]]) / (2.0 * entry);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    for k in 0..matrix.nrows() {
        let (a, b) = (matrix[[k, p]], matrix[[k, q]]);
        matrix[[k, p]] = cosine * a - sine * b;
        matrix[[k, q]] = sine * a + cosine * b;
    }
    for k in 0..matrix.nrows() {
        let (a, b) = (matrix[[p, k]], matrix[[q, k]]);
        matrix[[p, k]] = cosine * a - sine * b;
        matrix[[q, k]] = sine * a + cosine * b;
        let (a, b) = (vectors[[k, p]], vectors[[k, q]]);
        vectors[[k, p]] = cosine * a - sine * b;
        vectors[[k, q]] = sine * a + cosine * b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_make_the_matrix(size in 1_usize..9, values in prop::collection::vec(-5.0_f64..5.0, 81)) {
            let matrix = Array2::from_shape_fn((size, size), |(r, c)| values[r.min(c) * 9 + r.max(c)]);
            let (eigenvalues, vectors) = symmetric_eigen(matrix.clone());
            let rebuilt = (&vectors * &ndarray::Array1::from(eigenvalues.clone())).dot(&vectors.t());
            prop_assert!((&rebuilt - &matrix).iter().all(|error| error.abs() < 1e-10));
            prop_assert!((vectors.t().dot(&vectors) - Array2::<f64>::eye(size)).iter().all(|error| error.abs() < 1e-10));
            prop_assert!(eigenvalues.is_sorted_by(|a, b| a >= b));
        }
    }
}
