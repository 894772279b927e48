//! Matches and labels as tensors.

use ndarray::Array2;
use safetensors::tensor::{SafeTensorError, TensorView};
use safetensors::{Dtype as TensorType, serialize};

use densecl_vision::features::{Dtype, encode_raw};
use densecl_vision::matching::PointMatch;

use crate::serving::ServingError;
use crate::serving::correspondence::{TargetLabels, TargetMatches};

/// Table of matches, `[M, 5]`: xs, ys, xt, yt, score.
pub(super) fn table(matches: &[PointMatch]) -> Array2<f32> {
    Array2::from_shape_fn((matches.len(), 5), |(row, column)| {
        let PointMatch { source, target, score, .. } = &matches[row];
        match column {
            0 => source.x as f32,
            1 => source.y as f32,
            2 => target.x as f32,
            3 => target.y as f32,
            _ => *score,
        }
    })
}

/// Writes a safetensors file. Target 0 has the tensors `0` (`[M, 5]`, see [`table`]) and, if verified, `0.inlier`
/// (`[M]`, 1 for an inlier) and `0.matrix` (`[3, 3]`, unless the matches determine none); the other targets likewise.
pub(super) fn encode_match_tensors(targets: &[TargetMatches]) -> Result<Vec<u8>, ServingError> {
    let mut tensors = Vec::new();
    for (index, TargetMatches { matches, verification, .. }) in targets.iter().enumerate() {
        let table = encode_raw(table(matches).view(), Dtype::Float32);
        tensors.push(NamedTensor::new(index.to_string(), TensorType::F32, vec![matches.len(), 5], table));
        let Some(verification) = verification else { continue };
        let inliers = matches.iter().map(|found| u8::from(found.inlier == Some(true))).collect();
        tensors.push(NamedTensor::new(format!("{index}.inlier"), TensorType::U8, vec![matches.len()], inliers));
        if let Some(matrix) = verification.matrix {
            let entries = matrix.as_flattened().iter().flat_map(|entry| entry.to_le_bytes()).collect();
            tensors.push(NamedTensor::new(format!("{index}.matrix"), TensorType::F64, vec![3, 3], entries));
        }
    }
    encode(&tensors)
}

/// Writes a safetensors file with the labels of each target, `[H, W]`, as the tensors `0`, `1`, ….
pub(super) fn encode_labels_tensors(targets: &[TargetLabels]) -> Result<Vec<u8>, ServingError> {
    let entry = |(index, TargetLabels { size, labels }): (usize, &TargetLabels)| {
        NamedTensor::new(
            index.to_string(),
            TensorType::U8,
            vec![size.height as usize, size.width as usize],
            labels.clone(),
        )
    };
    encode(&targets.iter().enumerate().map(entry).collect::<Vec<_>>())
}

struct NamedTensor {
    name: String,
    dtype: TensorType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl NamedTensor {
    fn new(name: String, dtype: TensorType, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        Self { name, dtype, shape, bytes }
    }
}

fn encode(tensors: &[NamedTensor]) -> Result<Vec<u8>, ServingError> {
    let views = tensors
        .iter()
        .map(|NamedTensor { name, dtype, shape, bytes }| Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?)));
    let views = views.collect::<Result<Vec<_>, SafeTensorError>>().map_err(ServingError::internal)?;
    serialize(views, None).map_err(ServingError::internal)
}
