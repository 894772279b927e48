//! Matches, similarities and labels as replies.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ndarray::ArrayView2;

use densecl_vision::features::{
    Dtype, EncodedTensor, ImagePoints, NumberForm, Tensor, encode_npy, encode_npy_u8, npy_header,
};
use densecl_vision::image::{LabelStyle, RgbImage, encode_labels, encode_png};
use densecl_vision::matching::{MatchedImage, SimilarityMaps, draw_matches, draw_similarity};

use super::document::CorrespondenceJson;
use super::parameters::CorrespondenceFormat;
use super::tensors::{encode_labels_tensors, encode_match_tensors, table};
use crate::http::features::{LAYER, MODEL};
use crate::http::reply::{ReplyBody, media_type};
use crate::serving::correspondence::{Cost, MatchedFeatures, Outcome, TargetLabels, TargetMatches};
use crate::serving::{CpuPool, Selection, ServingError};

/// Writer of the reply to a request.
pub(super) struct CorrespondenceReply {
    pub(super) selection: Selection,
    pub(super) format: CorrespondenceFormat,
    pub(super) cpu: CpuPool,
}

impl CorrespondenceReply {
    pub(super) fn write(&self, outcome: Outcome) -> Result<Response, ServingError> {
        let body = match outcome {
            Outcome::Matches { source, targets, points } => self.matches(&source, targets, points.as_ref())?,
            Outcome::Heatmaps(maps) => {
                let head = npy_header(Dtype::Float32, &maps.shape());
                let maps = EncodedTensor::new(Arc::new(maps), NumberForm::Binary(Dtype::Float32));
                ReplyBody::from_bytes(head).tensor(maps)
            }
            Outcome::Labels { targets, style } => ReplyBody::from_bytes(self.labels(&targets, &style)?),
        };
        Ok((self.headers()?, body.into_body(self.cpu.clone())).into_response())
    }

    fn matches(
        &self,
        source: &MatchedFeatures,
        mut targets: Vec<TargetMatches>,
        points: Option<&ImagePoints>,
    ) -> Result<ReplyBody, ServingError> {
        let body = match self.format {
            CorrespondenceFormat::Json => {
                let document = CorrespondenceJson::new(&self.selection, &source.image, &targets);
                serde_json::to_vec(&document).map_err(ServingError::internal)?
            }
            CorrespondenceFormat::Safetensors => encode_match_tensors(&targets),
            CorrespondenceFormat::Npy => {
                encode_npy(table(&single_target(&mut targets)?.matches).view(), Dtype::Float32)
            }
            CorrespondenceFormat::Png | CorrespondenceFormat::Heatmap => {
                encode_png(&draw(source, single_target(&mut targets)?, points)?).map_err(ServingError::internal)?
            }
        };
        Ok(ReplyBody::from_bytes(body))
    }

    fn labels(&self, targets: &[TargetLabels], style: &LabelStyle) -> Result<Vec<u8>, ServingError> {
        if self.format == CorrespondenceFormat::Safetensors {
            return encode_labels_tensors(targets).map_err(ServingError::internal);
        }
        let [TargetLabels { size, labels }] = targets else { return Err(not_single()) };
        if self.format == CorrespondenceFormat::Npy {
            return Ok(encode_npy_u8(labels, &[size.height as usize, size.width as usize]));
        }
        encode_labels(labels, *size, style).map_err(ServingError::internal)
    }

    fn headers(&self) -> Result<[(HeaderName, HeaderValue); 3], ServingError> {
        let model = &self.selection.model;
        let value = |text: String| HeaderValue::try_from(text).map_err(ServingError::internal);
        Ok([
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type(self.format))),
            (MODEL, value(format!("{}/{}", model.name(), model.version()))?),
            (LAYER, value(self.selection.layer_name())?),
        ])
    }
}

/// Refuses a reply that would be too large.
pub(super) fn check(cost: &Cost, format: CorrespondenceFormat, max_bytes: u64) -> Result<(), ServingError> {
    /// Largest JSON text of a match without its candidates.
    const MATCH_TEXT_BYTES: u64 = 200;
    /// Largest JSON text of a candidate.
    const CANDIDATE_TEXT_BYTES: u64 = 80;
    let bytes = match format {
        CorrespondenceFormat::Json => {
            cost.rows * MATCH_TEXT_BYTES + cost.candidates.saturating_mul(CANDIDATE_TEXT_BYTES)
        }
        CorrespondenceFormat::Heatmap => cost.heatmap_values.saturating_mul(4),
        CorrespondenceFormat::Npy | CorrespondenceFormat::Safetensors if cost.label_pixels > 0 => cost.label_pixels,
        // Five floats and a flag.
        CorrespondenceFormat::Npy | CorrespondenceFormat::Safetensors => cost.rows.saturating_mul(21),
        // The drawing has a bounded size; a label map is as large as an accepted image.
        CorrespondenceFormat::Png => 0,
    };
    if bytes > max_bytes { Err(ServingError::ReplyTooLarge { bytes, limit: max_bytes }) } else { Ok(()) }
}

/// Returns the target of a reply whose format was negotiated for one.
fn single_target(targets: &mut Vec<TargetMatches>) -> Result<TargetMatches, ServingError> {
    if targets.len() == 1 { targets.pop().ok_or_else(not_single) } else { Err(not_single()) }
}

fn not_single() -> ServingError {
    ServingError::internal(anyhow::anyhow!("this format holds one target"))
}

/// Draws the matches as lines or, for a single point, its similarity over the target.
fn draw(
    source: &MatchedFeatures,
    found: TargetMatches,
    points: Option<&ImagePoints>,
) -> Result<RgbImage, ServingError> {
    let TargetMatches { target, matches, .. } = found;
    let (Some(source_image), Some(target_image)) = (&source.image.pixels, &target.image.pixels) else {
        return Err(ServingError::internal(anyhow::anyhow!("the pixels were not kept for a drawing")));
    };
    let Some((points, &[point])) = points.map(|points| (points, points.as_slice())) else {
        return draw_matches(source_image, target_image, &matches).map_err(ServingError::internal);
    };
    let source_side = MatchedImage { map: &source.map, image: source.image.size };
    let maps = SimilarityMaps::new(source_side, points, target.map)?;
    let mut similarities = Vec::new();
    maps.append(0..maps.unit(), &mut similarities);
    let similarity = ArrayView2::from_shape((maps.grid().height, maps.grid().width), &similarities)
        .map_err(ServingError::internal)?;
    draw_similarity(source_image, point, target_image, similarity).map_err(ServingError::internal)
}
