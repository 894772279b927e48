//! Matches, similarities and labels as replies.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ndarray::ArrayView2;

use super::correspondence_document::CorrespondenceJson;
use super::correspondence_job::{Described, Outcome, TargetLabels, TargetMatches};
use super::correspondence_parameters::CorrespondenceFormat;
use super::correspondence_tensors::{encode_labels_tensors, encode_match_tensors, table};
use super::cpu_pool::CpuPool;
use super::features_reply::{LAYER, MODEL};
use super::negotiation::media_type;
use super::pipeline::Extraction;
use super::reply_body::ReplyBody;
use crate::error::ApiError;
use densecl_vision::features::{
    Dtype, EncodedTensor, ImagePoints, NumberForm, Tensor, encode_npy, encode_npy_u8, npy_header,
};
use densecl_vision::image::{LabelStyle, RgbImage, encode_labels, encode_png};
use densecl_vision::matching::{MatchedImage, SimilarityMaps, draw_matches, draw_similarity};

/// What all replies to a request have in common.
pub(super) struct CorrespondenceReply {
    pub(super) extraction: Extraction,
    pub(super) format: CorrespondenceFormat,
    pub(super) cpu: CpuPool,
}

impl CorrespondenceReply {
    pub(super) fn write(&self, outcome: Outcome) -> Result<Response, ApiError> {
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
        source: &Described,
        mut targets: Vec<TargetMatches>,
        points: Option<&ImagePoints>,
    ) -> Result<ReplyBody, ApiError> {
        let body = match self.format {
            CorrespondenceFormat::Json => {
                let document = CorrespondenceJson::new(&self.extraction, &source.side, &targets);
                serde_json::to_vec(&document).map_err(ApiError::internal)?
            }
            CorrespondenceFormat::Safetensors => encode_match_tensors(&targets)?,
            CorrespondenceFormat::Npy => encode_npy(table(&only(&mut targets)?.matches).view(), Dtype::Float32),
            CorrespondenceFormat::Png | CorrespondenceFormat::Heatmap => {
                encode_png(&picture(source, only(&mut targets)?, points)?).map_err(ApiError::internal)?
            }
        };
        Ok(ReplyBody::from_bytes(body))
    }

    fn labels(&self, targets: &[TargetLabels], style: &LabelStyle) -> Result<Vec<u8>, ApiError> {
        if self.format == CorrespondenceFormat::Safetensors {
            return encode_labels_tensors(targets);
        }
        let [TargetLabels { size, labels }] = targets else { return Err(not_one()) };
        if self.format == CorrespondenceFormat::Npy {
            return Ok(encode_npy_u8(labels, &[size.height as usize, size.width as usize]));
        }
        encode_labels(labels, *size, style).map_err(ApiError::internal)
    }

    fn headers(&self) -> Result<[(HeaderName, HeaderValue); 3], ApiError> {
        let model = &self.extraction.model;
        let value = |text: String| HeaderValue::try_from(text).map_err(ApiError::internal);
        Ok([
            (header::CONTENT_TYPE, HeaderValue::from_static(media_type(self.format))),
            (MODEL, value(format!("{}/{}", model.name(), model.version()))?),
            (LAYER, value(self.extraction.layer_name())?),
        ])
    }
}

/// The format was negotiated for one target.
fn only(targets: &mut Vec<TargetMatches>) -> Result<TargetMatches, ApiError> {
    if targets.len() == 1 { targets.pop().ok_or_else(not_one) } else { Err(not_one()) }
}

fn not_one() -> ApiError {
    ApiError::internal(anyhow::anyhow!("this format is of one target"))
}

/// The matches as lines; the similarity of a single point as a picture of its own.
fn picture(source: &Described, found: TargetMatches, points: Option<&ImagePoints>) -> Result<RgbImage, ApiError> {
    let TargetMatches { target, matches, .. } = found;
    let (Some(source_image), Some(target_image)) = (&source.side.image, &target.side.image) else {
        return Err(ApiError::internal(anyhow::anyhow!("pixels are kept for a picture")));
    };
    let Some((points, &[point])) = points.map(|points| (points, points.as_slice())) else {
        return draw_matches(source_image, target_image, &matches).map_err(ApiError::internal);
    };
    let source_side = MatchedImage { map: &source.map, image: source.side.size };
    let maps = SimilarityMaps::new(source_side, points, target.map)?;
    let mut similarities = Vec::new();
    maps.append(0..maps.unit(), &mut similarities);
    let similarity =
        ArrayView2::from_shape((maps.grid().height, maps.grid().width), &similarities).map_err(ApiError::internal)?;
    draw_similarity(source_image, point, target_image, similarity).map_err(ApiError::internal)
}
