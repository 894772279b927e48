//! Matches and labels as tensors.

use densecl_vision::features::{StoredTensor, encode_safetensors};
use densecl_vision::matching::PointMatch;
use ndarray::{Array2, ArrayView1, ArrayView2};

use super::document::reason_word;
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

/// Writes a safetensors file: of target 0 the tensors `0` (`[M, 5]`, see [`table`]) and, if verified, `0.inlier` (`[M]`, 1
/// for an inlier) and `0.matrix` (`[3, 3]`), or, if the matches determine none, `0.reason` in the metadata; likewise of the
/// others.
pub(super) fn encode_match_tensors(targets: &[TargetMatches]) -> Vec<u8> {
    let (mut tensors, mut metadata) = (Vec::new(), Vec::new());
    for (index, TargetMatches { matches, verification, .. }) in targets.iter().enumerate() {
        tensors.push(StoredTensor::new(index.to_string(), table(matches).view()));
        let Some(verification) = verification else { continue };
        let inliers: Vec<u8> = matches.iter().map(|found| u8::from(found.inlier == Some(true))).collect();
        tensors.push(StoredTensor::new(format!("{index}.inlier"), ArrayView1::from(&inliers)));
        if let Some(matrix) = &verification.matrix {
            tensors.push(StoredTensor::new(format!("{index}.matrix"), ArrayView2::from(matrix)));
        }
        metadata.extend(verification.reason.map(|reason| (format!("{index}.reason"), reason_word(reason).to_owned())));
    }
    encode_safetensors(tensors, &metadata)
}

/// Writes a safetensors file with the labels of each target, `[H, W]`, as the tensors `0`, `1`, ….
pub(super) fn encode_labels_tensors(targets: &[TargetLabels]) -> Result<Vec<u8>, ndarray::ShapeError> {
    let tensor = |(index, TargetLabels { size, labels }): (usize, &TargetLabels)| {
        let labels = ArrayView2::from_shape((size.height as usize, size.width as usize), labels)?;
        Ok(StoredTensor::new(index.to_string(), labels))
    };
    let tensors = targets.iter().enumerate().map(tensor).collect::<Result<_, ndarray::ShapeError>>()?;
    Ok(encode_safetensors(tensors, &[]))
}
