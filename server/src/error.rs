//! What can go wrong with a request, and what its sender is told: the only place where a failure
//! becomes a status.
//!
//! The outside sees a [`Problem`] (RFC 9457): what was wrong, the limit, and what to do. The
//! inside cause of a failure of ours is in [`ApiError::Internal`], which is logged once, where the
//! reply is made, and never sent.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::api_keys::KeyRefusal;
use densecl_inference::batch::BatchError;
use densecl_inference::backend::BackendError;
use densecl_inference::registry::{ChangeError, LookupError};
use densecl_vision::features::{ComponentsError, GridError, MAX_PLACES_PER_SIDE, PointError, RenderError, WindowError};
use densecl_vision::image::{DecodeError, ImageSize, LabelError};
use densecl_vision::matching::MatchError;

/// How long a client should wait before it tries an overloaded server again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Predictions reach no further.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

/// An error reply, as RFC 9457 has it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem; it never changes, so that programs can tell problems apart.
    #[serde(rename = "type")]
    #[schema(example = "/problems/point-outside")]
    pub kind: String,
    /// The kind in words.
    pub title: &'static str,
    /// The status code of the reply.
    pub status: u16,
    /// What is wrong with this very request.
    pub detail: String,
    /// The limit that was passed, in the unit that `detail` names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<u64>,
    /// What to do about it.
    pub hint: &'static str,
    /// When it makes sense to try again.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

/// Why a request is not answered as it was meant.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant, and its row in `problem`, say it all")]
pub enum ApiError {
    #[error("the request has no body")]
    EmptyBody,
    #[error("`{name}` is empty: 0 bytes")]
    EmptyPart { name: String },
    #[error("`{name}` is missing")]
    MissingPart { name: &'static str },
    #[error("`{name}` comes more than once")]
    RepeatedPart { name: &'static str },
    #[error("there are more images than are taken: at most {limit}")]
    TooManyImages { limit: usize },
    #[error("there are more parameters than any request has: at most {limit} are read")]
    TooManyParameters { limit: usize },
    #[error("with `{name}` the parameters take more than {limit} bytes")]
    ParametersTooLarge { name: String, limit: u64 },
    #[error("{name}: {error}")]
    OfImage { name: String, error: Box<Self> },
    #[error(transparent)]
    Shared(Arc<Self>),
    #[error("unknown part or parameter `{name}`: {expected}")]
    UnknownParameter { name: String, expected: String },
    #[error("parameter `{name}`: {reason}")]
    MalformedParameter { name: String, reason: String },
    #[error("{0}")]
    MalformedBody(String),
    #[error("{0}")]
    MalformedInference(String),
    #[error("images of {height} x {width} pixels cannot be run: both must be multiples of {multiple}")]
    SideNotMultiple { height: u64, width: u64, multiple: u32 },
    #[error("`points` holds a number that is not finite")]
    PointNotFinite,
    #[error("bodies of type `{found}` are not read here")]
    ContentType { found: String, expected: &'static str },
    #[error("bodies in the encoding `{found}` are not read here")]
    ContentEncoding { found: String },
    #[error("`{accept}` asks for none of the formats of this reply: {offered}")]
    NotAcceptable { accept: String, offered: String },
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the image and its feature maps would take {bytes} bytes of memory; all requests together have {limit}")]
    TooMuchMemory { bytes: u64, limit: u64 },
    #[error("the reply would have {bytes} bytes; at most {limit} are sent")]
    ReplyTooLarge { bytes: u64, limit: u64 },
    #[error("the body did not arrive within {} s", limit.as_secs_f32())]
    BodyTooSlow { limit: Duration },
    #[error("there was no answer within {} s", limit.as_secs_f32())]
    DeadlinePassed { limit: Duration },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("the file of model `{name}`, version {version}, was overwritten after it was loaded")]
    ModelFileChanged { name: String, version: u32 },
    #[error("loading and unloading models is not open to everybody")]
    NotAdministrator,
    #[error("side must be within 32 to {max_side_px} pixels, not {side_px}")]
    SideOutOfRange { side_px: u64, max_side_px: u32 },
    #[error(transparent)]
    Point(#[from] PointError),
    #[error(transparent)]
    Grid(#[from] GridError),
    #[error(transparent)]
    Mask(#[from] LabelError),
    #[error(
        "the mask has {} x {} pixels, and the upright source {} x {}",
        found.width, found.height, expected.width, expected.height
    )]
    MaskSize { found: ImageSize, expected: ImageSize },
    #[error("no features are kept under the id `{id}`")]
    UnknownFeatureId { id: String },
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(transparent)]
    Components(#[from] ComponentsError),
    #[error("there are {count} points; at most {limit} are taken")]
    TooManyPoints { count: usize, limit: usize },
    #[error("{count} points against {cells} cells are too many comparisons; at most {limit} are made")]
    TooManyComparisons { count: u64, cells: u64, limit: u64 },
    #[error("{0}")]
    Conflict(String),
    #[error("the server has as much to do as it can answer in time")]
    Overloaded { retry_after: Duration },
    #[error("there are more than {limit} connections")]
    TooManyConnections { limit: usize },
    #[error("this client has sent too many requests")]
    RateLimited { wait: Duration },
    #[error(transparent)]
    Unauthorized(#[from] KeyRefusal),
    #[error("the models are still loading")]
    Loading,
    #[error("the server is shutting down")]
    Draining,
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("this path does not take {method}")]
    MethodNotAllowed { method: String },
    #[error("something went wrong inside the server")]
    Internal(#[source] anyhow::Error),
}

impl ApiError {
    /// A failure that is not the sender's: `cause` goes to the log and nowhere else.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// Says which of several images this is about. A failure that would have met any image stays as it is.
    #[must_use]
    pub fn of_image(self, name: String) -> Self {
        if self.row().status < 500 { Self::OfImage { name, error: Box::new(self) } } else { self }
    }

    /// Whether whoever sends the same image meets the same failure: it says nothing of the request's own time and means.
    pub fn concerns_every_sender(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Internal(_))
    }

    /// The failure of ours that this is, for the log.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        match self {
            Self::Internal(cause) => Some(cause),
            Self::Shared(error) => error.cause(),
            _ => None,
        }
    }

    /// What the sender is told.
    pub fn problem(&self) -> Problem {
        let Row { status, slug, title, hint } = self.row();
        Problem {
            kind: format!("/problems/{slug}"),
            title,
            status,
            detail: shortened(self.to_string()),
            limit: self.limit(),
            hint,
            retry_after: self.retry_after(status),
        }
    }

    /// Names the kind of problem: the last part of its type.
    pub fn kind(&self) -> &'static str {
        self.row().slug
    }

    fn retry_after(&self, status: u16) -> Option<Duration> {
        match *self {
            Self::RateLimited { wait } => Some(wait),
            Self::Overloaded { retry_after } => Some(retry_after.clamp(RETRY_AFTER, LONGEST_RETRY_AFTER)),
            Self::Shared(ref error) => error.retry_after(status),
            _ => (status == 503).then_some(RETRY_AFTER),
        }
    }

    fn limit(&self) -> Option<u64> {
        match *self {
            Self::BodyTooLarge { limit }
            | Self::ReplyTooLarge { limit, .. }
            | Self::TooMuchMemory { limit, .. }
            | Self::ParametersTooLarge { limit, .. }
            | Self::TooManyComparisons { limit, .. } => Some(limit),
            Self::BodyTooSlow { limit } | Self::DeadlinePassed { limit } => Some(limit.as_secs()),
            Self::Decode(DecodeError::TooManyPixels { max_pixels, .. })
            | Self::Mask(LabelError::TooManyPixels { max_pixels, .. }) => Some(max_pixels),
            Self::SideOutOfRange { max_side_px, .. } => Some(u64::from(max_side_px)),
            Self::SideNotMultiple { multiple, .. } => Some(u64::from(multiple)),
            Self::Grid(GridError::TooManyPoints { max_points, .. }) => Some(max_points as u64),
            Self::Window(WindowError::Resolution { .. }) => Some(u64::from(MAX_PLACES_PER_SIDE)),
            Self::Components(ComponentsError::Count { most, .. }) => Some(most as u64),
            Self::RepeatedPart { .. } => Some(1),
            Self::TooManyPoints { limit, .. }
            | Self::TooManyConnections { limit }
            | Self::TooManyImages { limit }
            | Self::TooManyParameters { limit } => Some(limit as u64),
            Self::OfImage { ref error, .. } => error.limit(),
            Self::Shared(ref error) => error.limit(),
            _ => None,
        }
    }

    fn row(&self) -> Row {
        match self {
            Self::EmptyBody => row(400, "empty-body", "Empty body", "Send the bytes of an image."),
            Self::EmptyPart { .. } | Self::Decode(DecodeError::Empty) => {
                row(400, "empty-part", "Empty part", "Send the bytes of an image in it.")
            }
            Self::MissingPart { .. } => {
                row(400, "missing-part", "Missing part", "Add the part to the form, or the field to the JSON object.")
            }
            Self::RepeatedPart { .. } => row(422, "too-many-images", "Too many images", "Send it once."),
            Self::TooManyImages { .. } => {
                row(422, "too-many-images", "Too many images", "Send the images in several requests.")
            }
            Self::TooManyParameters { .. } => {
                row(413, "too-many-parameters", "Too many parameters", "See /docs for the parameters of this path.")
            }
            Self::ParametersTooLarge { .. } => {
                row(413, "parameters-too-large", "Parameters too large", "Send fewer points, or several requests.")
            }
            Self::OfImage { error, .. } => error.row(),
            Self::Shared(error) => error.row(),
            Self::UnknownParameter { .. }
            | Self::MalformedParameter { .. }
            | Self::MalformedBody(_)
            | Self::MalformedInference(_)
            | Self::ContentType { .. }
            | Self::ContentEncoding { .. } => form_row(self),
            Self::NotAcceptable { .. } => {
                row(406, "not-acceptable", "Not acceptable", "Change `Accept`, or name a `format`.")
            }
            Self::BodyTooLarge { .. } => row(413, "body-too-large", "Body too large", "Send a smaller image."),
            Self::ReplyTooLarge { .. } => {
                row(413, "reply-too-large", "Reply too large", "Ask for a coarser layer, a smaller side or float16.")
            }
            Self::TooMuchMemory { .. } => row(
                413,
                "too-much-memory",
                "Too much memory",
                "Send a smaller image, or ask for a coarser layer or a smaller side.",
            ),
            Self::BodyTooSlow { .. } => row(408, "body-too-slow", "Body too slow", "Try again, or send less."),
            Self::DeadlinePassed { .. } => {
                row(504, "deadline-passed", "Deadline passed", "Try again, or ask for a smaller side.")
            }
            Self::Conflict(_) => {
                row(422, "conflicting-parameters", "Conflicting parameters", "Leave out one of the two.")
            }
            Self::NoSuchPath => row(404, "no-such-path", "No such path", "See /docs for the paths there are."),
            Self::MethodNotAllowed { .. } => {
                row(405, "method-not-allowed", "Method not allowed", "Use a method of the Allow header.")
            }
            Self::Internal(_) => {
                row(500, "internal", "Internal error", "Try again; if it persists, report the X-Request-Id.")
            }
            Self::Overloaded { .. } => {
                row(503, "overloaded", "Overloaded", "Try again after Retry-After, or elsewhere.")
            }
            Self::TooManyConnections { .. } => {
                row(503, "too-many-connections", "Too many connections", "Try again after Retry-After, or elsewhere.")
            }
            Self::RateLimited { .. } => {
                row(429, "rate-limited", "Too many requests", "Wait for Retry-After, and send requests more slowly.")
            }
            Self::Unauthorized(_) => row(
                401,
                "unauthorized",
                "No valid API key",
                "Send a key as `Authorization: Bearer KEY` or as `X-API-Key: KEY`; whoever runs this server gives them out.",
            ),
            Self::Loading => row(503, "loading", "Loading", "Try again after Retry-After, or elsewhere."),
            Self::Draining => row(503, "draining", "Draining", "Try another replica."),
            Self::Decode(error) => image_row(error),
            Self::Lookup(error) => lookup_row(error),
            Self::Change(_) | Self::ModelFileChanged { .. } | Self::NotAdministrator => administration_row(self),
            Self::Mask(error) => mask_row(error),
            Self::MaskSize { .. } => {
                row(422, "mask-size", "Mask of another size", "Send a mask as large as the upright source image.")
            }
            Self::UnknownFeatureId { .. } => row(
                404,
                "unknown-feature-id",
                "Unknown feature id",
                "It was never here, or has expired: send the image again as `source` or `target`.",
            ),
            Self::PointNotFinite
            | Self::SideOutOfRange { .. }
            | Self::SideNotMultiple { .. }
            | Self::Point(_)
            | Self::Grid(_)
            | Self::Window(_)
            | Self::Components(_)
            | Self::TooManyPoints { .. }
            | Self::TooManyComparisons { .. } => range_row(self),
        }
    }
}

/// What cannot be read as a request.
fn form_row(error: &ApiError) -> Row {
    match error {
        ApiError::UnknownParameter { .. } => {
            row(400, "unknown-parameter", "Unknown parameter", "See /docs for the parameters of this path.")
        }
        ApiError::MalformedParameter { .. } => {
            row(400, "malformed-parameter", "Malformed parameter", "See /docs for what this parameter takes.")
        }
        ApiError::MalformedBody(_) => {
            row(400, "malformed-body", "Malformed body", "Send the body complete, and as its Content-Type says.")
        }
        ApiError::MalformedInference(_) => row(
            400,
            "malformed-inference",
            "Malformed inference request",
            "Send what the metadata of the model asks for, in a form of the Open Inference Protocol.",
        ),
        ApiError::ContentType { expected, .. } => {
            row(415, "unsupported-content-type", "Unsupported content type", expected)
        }
        _ => row(415, "unsupported-content-encoding", "Unsupported content encoding", "Send the body as it is."),
    }
}

/// What a sender wrote comes back in `detail`, but not megabytes of it.
fn shortened(mut detail: String) -> String {
    const MAX_BYTES: usize = 1000;
    if detail.len() > MAX_BYTES {
        let end = detail.floor_char_boundary(MAX_BYTES);
        detail.truncate(end);
        detail.push('…');
    }
    detail
}

/// The part of a [`Problem`] that is the same for all of its kind.
struct Row {
    status: u16,
    slug: &'static str,
    title: &'static str,
    hint: &'static str,
}

const fn row(status: u16, slug: &'static str, title: &'static str, hint: &'static str) -> Row {
    Row { status, slug, title, hint }
}

fn image_row(error: &DecodeError) -> Row {
    match error {
        DecodeError::Empty => row(400, "empty-part", "Empty part", "Send the bytes of an image in it."),
        DecodeError::UnknownFormat | DecodeError::Unsupported { .. } => {
            row(415, "unsupported-image", "Not an image we read", "Send a JPEG, PNG, WebP, GIF, BMP or TIFF.")
        }
        DecodeError::Corrupt { .. } => {
            row(422, "corrupt-image", "Corrupt image", "Check that the file is complete and opens elsewhere.")
        }
        DecodeError::TooManyPixels { .. } | DecodeError::TooMuchMemory { .. } => {
            row(413, "too-many-pixels", "Too many pixels", "Send a smaller image.")
        }
    }
}

fn mask_row(error: &LabelError) -> Row {
    match error {
        LabelError::NotPng | LabelError::NotLabels { .. } => row(
            415,
            "unsupported-mask",
            "Not a mask we read",
            "Send a PNG with a palette, or grey with at most 8 bits.",
        ),
        LabelError::Corrupt { .. } => {
            row(422, "corrupt-mask", "Corrupt mask", "Check that the file is complete and opens elsewhere.")
        }
        LabelError::TooManyPixels { .. } => row(413, "too-many-pixels", "Too many pixels", "Send a smaller image."),
    }
}

fn lookup_row(error: &LookupError) -> Row {
    let hint = "See /models for what there is.";
    match error {
        LookupError::UnknownModel { .. } => row(404, "unknown-model", "Unknown model", hint),
        LookupError::UnknownVersion { .. } => row(404, "unknown-version", "Unknown version", hint),
        LookupError::NotLoaded { .. } | LookupError::NoModel => row(404, "model-not-loaded", "Model not loaded", hint),
        LookupError::UnknownLayer { .. } => row(404, "unknown-layer", "Unknown layer", hint),
        LookupError::RepeatedLayer { .. } => {
            row(422, "repeated-layer", "Repeated layer", "Name each layer of a hypercolumn once.")
        }
    }
}

/// What somebody who runs the server has to do with.
fn administration_row(error: &ApiError) -> Row {
    match error {
        ApiError::ModelFileChanged { .. } => row(
            503,
            "model-file-changed",
            "Model file changed",
            "Whoever runs the server has to load the model again. Replace model files by a rename.",
        ),
        ApiError::Change(ChangeError::Unknown { .. }) => {
            row(404, "unknown-model", "Unknown model", "See /models for what there is.")
        }
        ApiError::Change(_) => {
            row(422, "cannot-load-model", "Cannot load the model", "Correct what is wrong, then load it again.")
        }
        _ => row(
            403,
            "not-administrator",
            "Not an administrator",
            "Start the server with --admin-listen and ask there, or use an API key of an administrator.",
        ),
    }
}

/// Readable, but impossible.
fn range_row(error: &ApiError) -> Row {
    match error {
        ApiError::PointNotFinite | ApiError::Point(PointError::NotFinite { .. }) => {
            row(422, "point-not-finite", "Point not finite", "Send finite coordinates only.")
        }
        ApiError::Point(PointError::Outside { .. }) => row(
            422,
            "point-outside",
            "Point outside the image",
            "Coordinates are in pixels of the upright image; (0, 0) is the centre of its top-left pixel.",
        ),
        ApiError::SideOutOfRange { .. } => {
            row(422, "side-out-of-range", "Side out of range", "Choose a side within the range.")
        }
        ApiError::SideNotMultiple { .. } => row(
            422,
            "side-not-multiple",
            "Side not a multiple",
            "Resize or pad the images; /features takes them at any size.",
        ),
        ApiError::Grid(GridError::Spacing { .. }) => {
            row(422, "grid-out-of-range", "Grid out of range", "Choose a spacing of at least 1 pixel.")
        }
        ApiError::Window(WindowError::OutsideImage { .. }) => row(
            422,
            "crop-outside",
            "Crop outside the image",
            "Choose x,y,w,h within the upright image, at least one pixel wide and high.",
        ),
        ApiError::Window(WindowError::NoCells { .. }) => row(
            422,
            "crop-without-cells",
            "Crop without cells",
            "Choose a larger crop, a finer layer, or `resolution=pixel`.",
        ),
        ApiError::Window(WindowError::Resolution { .. }) => {
            row(422, "resolution-out-of-range", "Resolution out of range", "Choose a resolution within the range.")
        }
        ApiError::Components(_) => row(
            422,
            "components-out-of-range",
            "Components out of range",
            "Choose a number of components within the range.",
        ),
        ApiError::TooManyComparisons { .. } => row(
            422,
            "too-many-comparisons",
            "Too many comparisons",
            "Ask for a coarser layer, a smaller side or `points`.",
        ),
        _ => row(422, "too-many-points", "Too many points", "Send fewer points, or several requests."),
    }
}

impl From<RenderError> for ApiError {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Window(error) => error.into(),
            RenderError::Components(error) => error.into(),
        }
    }
}

impl From<BatchError> for ApiError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            BatchError::Closed => Self::Draining,
            // The handler's own deadline fires first and knows the limit; this is the race's other end.
            BatchError::DeadlinePassed => Self::DeadlinePassed { limit: Duration::ZERO },
            BatchError::Backend(inner) => match &*inner {
                BackendError::FileChanged { name, version } => {
                    Self::ModelFileChanged { name: name.clone(), version: *version }
                }
                _ => Self::internal(BatchError::Backend(inner)),
            },
            BatchError::Panicked(_) => Self::internal(error),
        }
    }
}

impl From<MatchError> for ApiError {
    fn from(error: MatchError) -> Self {
        match error {
            // Nobody reads it. The handler's own deadline knows the limit.
            MatchError::Cancelled(_) => Self::DeadlinePassed { limit: Duration::ZERO },
            // Both maps come from one model and one layer set, so this is ours.
            MatchError::Channels { .. } => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_an_internal_error_stays_inside() {
        let error = ApiError::internal(anyhow::anyhow!("/secret/path is gone"));
        let problem = serde_json::to_string(&error.problem()).unwrap();
        assert!(!problem.contains("secret"), "{problem}");
    }

    #[test]
    fn what_passes_says_when_to_retry() {
        let overloaded = |seconds| ApiError::Overloaded { retry_after: Duration::from_secs(seconds) };
        assert_eq!(overloaded(0).problem().retry_after, Some(RETRY_AFTER));
        assert_eq!(overloaded(7).problem().retry_after, Some(Duration::from_secs(7)));
        let wait = Duration::from_secs(7);
        assert_eq!(ApiError::RateLimited { wait }.problem().retry_after, Some(wait));
        assert_eq!(ApiError::EmptyBody.problem().retry_after, None);
    }

    #[test]
    fn a_limit_is_a_number_of_its_own() {
        let problem = ApiError::SideOutOfRange { side_px: 0, max_side_px: 2048 }.problem();
        assert_eq!((problem.status, problem.limit), (422, Some(2048)));
        assert_eq!(problem.kind, "/problems/side-out-of-range");
    }
}
