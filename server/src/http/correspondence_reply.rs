//! Matches as replies.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use ndarray::{Array2, ArrayView2};
use serde::Serialize;
use utoipa::ToSchema;

use super::correspondence::Matched;
use super::correspondence_parameters::CorrespondenceFormat;
use super::features_document::ImageSizeDocument;
use super::features_reply::{LAYER, MODEL};
use super::negotiation::media_type;
use super::pipeline::{Extraction, FeatureId};
use crate::error::ApiError;
use crate::features::{Dtype, encode_npy};
use crate::image::{ImageSize, RgbImage, encode_png};
use crate::matching::{MatchSide, PointMatch, draw_matches, draw_similarity, similarity_map};

/// One of the two images.
pub(super) struct Side {
    pub(super) image: RgbImage,
    pub(super) size: ImageSize,
    pub(super) id: FeatureId,
}

/// The matches of two images.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CorrespondenceDocument<'a> {
    /// Name of the model.
    model: &'a str,
    /// Version of the model.
    version: u32,
    /// The layer, or several joined by `+`.
    layer: String,
    /// Size of the source image.
    source_size: ImageSizeDocument,
    /// Size of the target image.
    target_size: ImageSizeDocument,
    /// Names the features of the source by image, model, layer and side.
    source_id: String,
    /// Names the features of the target by image, model, layer and side.
    target_id: String,
    /// One per point that was asked for and not filtered out, in the order of the points.
    #[schema(value_type = Vec<MatchDocument>)]
    matches: &'a [PointMatch],
}

/// A point of the source and where it was found.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the matcher's own type writes")]
struct MatchDocument {
    /// `[x, y]` in pixels of the source.
    source: [f64; 2],
    /// `[x, y]` in pixels of the target: the best place.
    target: [f64; 2],
    /// Cosine similarity of the two descriptors.
    score: f32,
    /// Whether the best place's best match is this point again.
    mutual: bool,
    /// The best similarity elsewhere over the best: 0 is unambiguous, 1 a tie.
    ratio: f32,
    /// The best places, `top_k` at most.
    candidates: Vec<CandidateDocument>,
}

/// A place in the target.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the matcher's own type writes")]
struct CandidateDocument {
    /// `[x, y]` in pixels of the target.
    target: [f64; 2],
    /// Cosine similarity of the two descriptors.
    score: f32,
}

/// All that is needed to write a reply.
pub(super) struct CorrespondenceReply {
    pub(super) extraction: Extraction,
    pub(super) source: Side,
    pub(super) target: Side,
    pub(super) matched: Matched,
    pub(super) format: CorrespondenceFormat,
}

impl CorrespondenceReply {
    pub(super) fn write(&self) -> Result<Response, ApiError> {
        let body = match self.format {
            CorrespondenceFormat::Json => serde_json::to_vec(&self.document()).map_err(ApiError::internal)?,
            CorrespondenceFormat::Npy => encode_npy(table(&self.matched.matches).view(), Dtype::Float32),
            CorrespondenceFormat::Png => encode_png(&self.picture()?).map_err(ApiError::internal)?,
        };
        Ok((self.headers()?, body).into_response())
    }

    fn document(&self) -> CorrespondenceDocument<'_> {
        CorrespondenceDocument {
            model: self.extraction.model.name(),
            version: self.extraction.model.version(),
            layer: self.extraction.layer_name(),
            source_size: self.source.size.into(),
            target_size: self.target.size.into(),
            source_id: self.source.id.to_string(),
            target_id: self.target.id.to_string(),
            matches: &self.matched.matches,
        }
    }

    /// The matches as lines; the similarity of a single point as a picture of its own.
    fn picture(&self) -> Result<RgbImage, ApiError> {
        let Matched { source, target, points, matches } = &self.matched;
        let (Some(points), [point]) = (points, points.as_ref().map_or(&[][..], |points| points.as_slice())) else {
            return draw_matches(&self.source.image, &self.target.image, matches).map_err(ApiError::internal);
        };
        let source_side = MatchSide { map: source, image: self.source.size };
        let target_side = MatchSide { map: target, image: self.target.size };
        let similarities = similarity_map(source_side, target_side, points)?; // [1, h·w]
        let grid = target.grid();
        let row = similarities.as_slice().unwrap_or_default();
        let similarity = ArrayView2::from_shape((grid.height, grid.width), row).map_err(ApiError::internal)?;
        draw_similarity(&self.source.image, *point, &self.target.image, similarity).map_err(ApiError::internal)
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

/// `[M, 5]`: xs, ys, xt, yt, score.
fn table(matches: &[PointMatch]) -> Array2<f32> {
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
