//! Matches in JSON.

use serde::Serialize;
use utoipa::ToSchema;

use super::correspondence_job::{Side, TargetMatches};
use super::features_document::ImageSizeDocument;
use super::pipeline::Extraction;
use densecl_vision::matching::{PointMatch, Verification};

/// The matches with one target, or with each of several.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum CorrespondenceJson<'a> {
    One(CorrespondenceDocument<'a>),
    Several(CorrespondencesDocument<'a>),
}

/// The matches with one target.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CorrespondenceDocument<'a> {
    #[serde(flatten)]
    source: SourceDocument<'a>,
    #[serde(flatten)]
    target: TargetDocument<'a>,
}

/// The matches with each of several targets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CorrespondencesDocument<'a> {
    #[serde(flatten)]
    source: SourceDocument<'a>,
    /// In the order of the request.
    targets: Vec<TargetDocument<'a>>,
}

#[derive(Debug, Serialize, ToSchema)]
struct SourceDocument<'a> {
    /// Name of the model.
    model: &'a str,
    /// Version of the model.
    version: u32,
    /// The layer, or several joined by `+`.
    layer: String,
    /// Size of the source image.
    source_size: ImageSizeDocument,
    /// Names the features of the source by image, model, layer and side.
    source_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct TargetDocument<'a> {
    /// Size of the target image.
    target_size: ImageSizeDocument,
    /// Names the features of the target by image, model, layer and side.
    target_id: String,
    /// One per point that was asked for and not filtered out, in the order of the points.
    #[schema(value_type = Vec<MatchDocument>)]
    matches: &'a [PointMatch],
    /// What the matches agree on, if `verify` was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<VerificationDocument>)]
    verification: Option<Verification>,
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
    /// Whether it agrees with the matrix, if `verify` was asked for.
    inlier: Option<bool>,
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

/// What the matches agree on.
#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes what the matcher's own type writes")]
struct VerificationDocument {
    /// `homography` or `fundamental`.
    model: String,
    /// Row by row; null if the matches do not determine it. A homography takes `(x, y, 1)` in pixels of the source to the target and ends in 1; a fundamental matrix has Frobenius norm 1.
    matrix: Option<[[f64; 3]; 3]>,
    /// How many matches agree with it.
    inliers: usize,
    /// The largest distance of an inlier in pixels of the target: of a homography in either image, of a fundamental matrix after Sampson.
    threshold_px: f64,
    /// Why there is no matrix. `too_few_matches`: fewer than 4 (homography) or 8. `no_consensus`: too few agree on anything. `degenerate`: those that agree lie on a line, or, of a fundamental matrix, on a plane: a homography says it all.
    #[schema(example = "degenerate")]
    reason: Option<String>,
}

impl<'a> CorrespondenceJson<'a> {
    pub(super) fn new(extraction: &'a Extraction, source: &Side, targets: &'a [TargetMatches]) -> Self {
        let source = SourceDocument {
            model: extraction.model.name(),
            version: extraction.model.version(),
            layer: extraction.layer_name(),
            source_size: source.size.into(),
            source_id: source.id.to_string(),
        };
        let document = |found: &'a TargetMatches| TargetDocument {
            target_size: found.target.side.size.into(),
            target_id: found.target.side.id.to_string(),
            matches: &found.matches,
            verification: found.verification,
        };
        match targets {
            [target] => Self::One(CorrespondenceDocument { source, target: document(target) }),
            several => {
                Self::Several(CorrespondencesDocument { source, targets: several.iter().map(document).collect() })
            }
        }
    }
}
