//! The parameters of `POST /correspondence`: as they are written, and as they are meant.

use std::num::NonZeroUsize;

use axum::http::HeaderMap;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::Schema;

use super::negotiation::{ReplyFormat, negotiate};
use super::parameters::{Parameters, one_of, read_points};
use super::pipeline::{Extraction, ExtractionChoice};
use super::state::AppState;
use crate::error::ApiError;
use crate::features::{ImagePoints, PixelPoint};
use crate::image::ImageSize;
use crate::matching::{MatchOptions, Refine};

/// More candidates than anyone looks at.
const MAX_TOP_K: usize = 100;

/// The form of a request. Parameters can stand in the query as well.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the form, which is read part by part")]
pub(super) struct CorrespondenceForm {
    /// The image whose points are looked for.
    #[schema(value_type = String, format = Binary)]
    source: Vec<u8>,
    /// The image that they are looked for in.
    #[schema(value_type = String, format = Binary)]
    target: Vec<u8>,
    #[schema(inline)]
    #[serde(flatten)]
    query: CorrespondenceQuery,
}

/// As they are written, in the query or as parts of the form.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CorrespondenceQuery {
    /// `[[x, y], …]` in pixels of the upright source image, (0, 0) being the centre of its top-left pixel. Neither `points` nor `grid`: every cell of the source.
    #[schema(example = "[[12.5, 40]]")]
    points: Option<String>,
    /// A point every so many pixels of the source.
    #[schema(minimum = 1)]
    grid: Option<f64>,
    /// Name of the model; the first one if not given.
    model: Option<String>,
    /// Version of the model; the newest if not given.
    version: Option<u32>,
    /// One layer, or several joined by `+` (a hypercolumn); the manifest's default if not given.
    #[schema(example = "res3+res4")]
    layer: Option<String>,
    /// Pixels that the images' longer sides are resized to, 32 to the server's limit; the manifest's default if not given.
    #[schema(minimum = 32)]
    side: Option<u64>,
    /// Candidates per point, 1 to 100.
    #[schema(minimum = 1, maximum = 100, default = 1)]
    top_k: Option<usize>,
    /// Keep only mutual nearest neighbours.
    #[serde(default)]
    mutual: bool,
    /// Keep only matches with at least this cosine similarity.
    min_score: Option<f32>,
    /// Keep only matches whose second-best similarity, outside the best's neighbourhood, is at most this share of the best.
    max_ratio: Option<f32>,
    /// `softargmax`: a place between the cells. `none`: the centre of the best cell.
    #[schema(schema_with = refinements)]
    #[serde(default)]
    refine: Refine,
    /// Format of the reply; what `Accept` prefers if not given, `json` for `*/*`. `npy`: `[M, 5]` float32, xs, ys, xt, yt, score. `png`: both pictures with the matches; with one point, its similarity over the target.
    #[schema(schema_with = formats)]
    format: Option<CorrespondenceFormat>,
}

/// The formats of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CorrespondenceFormat {
    Json,
    Npy,
    Png,
}

impl ReplyFormat for CorrespondenceFormat {
    const OFFERED: &'static [(Self, &'static str)] =
        &[(Self::Json, "application/json"), (Self::Npy, "application/x-npy"), (Self::Png, "image/png")];
}

fn refinements() -> Schema {
    one_of(&["softargmax", "none"])
}

fn formats() -> Schema {
    one_of(&["json", "npy", "png"])
}

/// As they are meant.
pub(super) struct CorrespondenceParameters {
    pub(super) extraction: Extraction,
    pub(super) asked: AskedPoints,
    pub(super) options: MatchOptions,
    pub(super) format: CorrespondenceFormat,
}

/// Which points of the source, before its size is known.
#[derive(Clone, Debug)]
pub(super) enum AskedPoints {
    Points(Vec<PixelPoint>),
    Grid { spacing_px: f64, max_points: usize },
    Cells,
}

impl AskedPoints {
    /// The points, which all lie in the image; `None` means every cell.
    pub(super) fn within(self, image: ImageSize) -> Result<Option<ImagePoints>, ApiError> {
        match self {
            Self::Points(points) => Ok(Some(ImagePoints::new(points, image)?)),
            Self::Grid { spacing_px, max_points } => Ok(Some(ImagePoints::grid(image, spacing_px, max_points)?)),
            Self::Cells => Ok(None),
        }
    }
}

impl CorrespondenceParameters {
    pub(super) fn read(app: &AppState, parameters: &Parameters, headers: &HeaderMap) -> Result<Self, ApiError> {
        let query: CorrespondenceQuery = parameters.read()?;
        let choice = ExtractionChoice {
            model: query.model.as_deref(),
            version: query.version,
            layer: query.layer.as_deref(),
            side: query.side,
        };
        let extraction = Extraction::resolve(app, &choice)?;
        let max_points = app.config().limits.max_points;
        let asked = match (query.points.as_deref(), query.grid) {
            (Some(_), Some(_)) => return Err(ApiError::Conflict("both `points` and `grid` are given".to_owned())),
            (Some(text), None) => AskedPoints::Points(read_points(text, max_points)?),
            (None, Some(spacing_px)) => AskedPoints::Grid { spacing_px, max_points },
            (None, None) => AskedPoints::Cells,
        };
        let format = negotiate(query.format, headers)?;
        Ok(Self { extraction, asked, options: query.match_options()?, format })
    }
}

impl CorrespondenceQuery {
    fn match_options(&self) -> Result<MatchOptions, ApiError> {
        let malformed = |name: &str, reason: &str| ApiError::MalformedParameter {
            name: name.to_owned(),
            reason: reason.to_owned(),
        };
        let top_k = NonZeroUsize::new(self.top_k.unwrap_or(1))
            .filter(|top_k| top_k.get() <= MAX_TOP_K)
            .ok_or_else(|| malformed("top_k", "it is not within 1 to 100"))?;
        for (name, value) in [("min_score", self.min_score), ("max_ratio", self.max_ratio)] {
            if value.is_some_and(|value| !value.is_finite()) {
                return Err(malformed(name, "it is not a finite number"));
            }
        }
        let Self { mutual, min_score, max_ratio, refine, .. } = *self;
        Ok(MatchOptions { top_k, mutual, min_score, max_ratio, refine })
    }
}
