//! Matches in JSON.

use serde::Serialize;
use utoipa::ToSchema;

use densecl_vision::matching::{Candidate, GeometricModel, PointMatch, Undetermined, Verification};

use crate::http::reply::ImageSizeDocument;
use crate::serving::Selection;
use crate::serving::correspondence::{MatchedPicture, TargetMatches};

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
    target: TargetDocument,
}

/// The matches with each of several targets.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CorrespondencesDocument<'a> {
    #[serde(flatten)]
    source: SourceDocument<'a>,
    /// In the order of the request.
    targets: Vec<TargetDocument>,
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
    /// Identifies the features of the source by image, model, layer and side.
    source_id: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct TargetDocument {
    /// Size of the target image.
    target_size: ImageSizeDocument,
    /// Identifies the features of the target by image, model, layer and side.
    target_id: String,
    /// One match per requested point that was not filtered out, in the order of the points.
    matches: Vec<MatchDocument>,
    /// Geometry that most matches agree on, if `verify` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationDocument>,
}

/// A point of the source and where it was found.
#[derive(Debug, Serialize, ToSchema)]
struct MatchDocument {
    /// `[x, y]` in pixels of the source.
    source: [f64; 2],
    /// `[x, y]` in pixels of the target: the best candidate.
    target: [f64; 2],
    /// Cosine similarity of the two descriptors, within [-1, 1].
    #[schema(minimum = -1, maximum = 1)]
    score: f32,
    /// True if the two are mutual nearest neighbours.
    mutual: bool,
    /// The second-best similarity, outside the best's neighbourhood, divided by the best: 0 is unambiguous, 1 a tie.
    ratio: f32,
    /// True if the match agrees with the matrix, if `verify` was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    inlier: Option<bool>,
    /// The best candidates, at most `top_k`.
    candidates: Vec<CandidateDocument>,
}

/// A candidate position in the target.
#[derive(Debug, Serialize, ToSchema)]
struct CandidateDocument {
    /// `[x, y]` in pixels of the target.
    target: [f64; 2],
    /// Cosine similarity of the two descriptors, within [-1, 1].
    #[schema(minimum = -1, maximum = 1)]
    score: f32,
}

/// Geometry that most matches agree on.
#[derive(Debug, Serialize, ToSchema)]
struct VerificationDocument {
    /// `homography` or `fundamental`.
    model: &'static str,
    /// The matrix, row by row; null if the matches do not determine one. A homography maps `(x, y, 1)` in pixels of the source to the target, and its last entry is 1; a fundamental matrix has Frobenius norm 1.
    matrix: Option<[[f64; 3]; 3]>,
    /// Number of matches that agree with the matrix.
    inliers: usize,
    /// Largest distance of an inlier in pixels of the target: the transfer error in either image for a homography, the Sampson distance for a fundamental matrix.
    threshold_px: f64,
    /// Reason why there is no matrix. `too_few_matches`: fewer than 4 (homography) or 8 (fundamental matrix). `no_consensus`: too few matches agree on one geometry, no more than would by chance. `degenerate`: the matches that agree also agree with other matrices, because in one of the images they are in fewer than 4 (homography) or 8 (fundamental matrix) different places, as those of a blank image are, or all but a few lie on one line, or, for a fundamental matrix, because nearly all lie on one plane, which a homography describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "degenerate")]
    reason: Option<&'static str>,
}

impl<'a> CorrespondenceJson<'a> {
    pub(super) fn new(selection: &'a Selection, source: &MatchedPicture, targets: &'a [TargetMatches]) -> Self {
        let source = SourceDocument {
            model: selection.model.name(),
            version: selection.model.version(),
            layer: selection.layer_name(),
            source_size: source.size.into(),
            source_id: source.id.to_string(),
        };
        let document = |found: &TargetMatches| TargetDocument {
            target_size: found.target.image.size.into(),
            target_id: found.target.image.id.to_string(),
            matches: found.matches.iter().map(MatchDocument::from).collect(),
            verification: found.verification.as_ref().map(VerificationDocument::from),
        };
        match targets {
            [target] => Self::One(CorrespondenceDocument { source, target: document(target) }),
            several => {
                Self::Several(CorrespondencesDocument { source, targets: several.iter().map(document).collect() })
            }
        }
    }
}

impl From<&PointMatch> for MatchDocument {
    fn from(found: &PointMatch) -> Self {
        Self {
            source: found.source.into(),
            target: found.target.into(),
            score: found.score,
            mutual: found.mutual,
            ratio: found.ratio,
            inlier: found.inlier,
            candidates: found.candidates.iter().map(CandidateDocument::from).collect(),
        }
    }
}

impl From<&Candidate> for CandidateDocument {
    fn from(candidate: &Candidate) -> Self {
        Self { target: candidate.target.into(), score: candidate.score }
    }
}

impl From<&Verification> for VerificationDocument {
    fn from(verification: &Verification) -> Self {
        Self {
            model: match verification.model {
                GeometricModel::Homography => "homography",
                GeometricModel::Fundamental => "fundamental",
            },
            matrix: verification.matrix,
            inliers: verification.inliers,
            threshold_px: verification.threshold_px,
            reason: verification.reason.map(reason_word),
        }
    }
}

/// The reason why there is no matrix, as replies name it.
pub(super) fn reason_word(reason: Undetermined) -> &'static str {
    match reason {
        Undetermined::TooFewMatches => "too_few_matches",
        Undetermined::NoConsensus => "no_consensus",
        Undetermined::Degenerate => "degenerate",
    }
}
