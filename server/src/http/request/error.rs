//! Errors of requests that cannot be read, or that contradict themselves.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use densecl_inference::registry::{ChangeError, LookupError};

use super::malformed::MalformedBody;
use super::text_position::TextPosition;
use crate::http::problem::{self, ProblemKind, ToProblem};
use crate::serving::{JobError, ServingError};

/// A request that cannot be read, or that contradicts itself.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant describes it")]
pub enum RequestError {
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
    #[error("unknown part or parameter `{name}`: {expected}")]
    UnknownParameter { name: String, expected: String },
    #[error("parameter `{name}`: {reason}")]
    MalformedParameter { name: String, reason: String },
    #[error("parameter `{name}`: {reason}, at line {} column {} of {within}", position.line, position.column)]
    MalformedJson { name: String, reason: String, position: TextPosition, within: &'static str },
    #[error(transparent)]
    MalformedBody(#[from] MalformedBody),
    #[error("`{name}` is {found}, not the bytes of an image")]
    NotBytes { name: String, found: String },
    #[error("{0}")]
    MalformedInference(String),
    #[error("images of {height} x {width} pixels cannot be run: both must be multiples of {multiple}")]
    SideNotMultiple { height: u64, width: u64, multiple: u32 },
    #[error("`points` holds a number that is not finite")]
    PointNotFinite,
    #[error("there are {count} points; at most {limit} are taken")]
    TooManyPoints { count: usize, limit: usize },
    #[error("bodies of type `{found}` are not supported")]
    ContentType { found: String, expected: &'static str },
    #[error("bodies in the encoding `{found}` are not supported")]
    ContentEncoding { found: String },
    #[error("`{accept}` asks for none of the formats of this reply: {offered}")]
    NotAcceptable { accept: String, offered: String },
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the body did not arrive within {} s", limit.as_secs_f32())]
    BodyTooSlow { limit: Duration },
    #[error("{0}")]
    Conflict(String),
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("this path takes {allowed}, not {method}")]
    MethodNotAllowed { method: String, allowed: &'static str },
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Serving(#[from] ServingError),
}

impl RequestError {
    /// Creates the error of a parameter that cannot be read.
    pub(in crate::http) fn malformed(name: &str, reason: &str) -> Self {
        Self::MalformedParameter { name: name.to_owned(), reason: reason.to_owned() }
    }

    /// Creates the error of a failure inside the server; `cause` is logged and never sent.
    pub(in crate::http) fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Serving(ServingError::internal(cause))
    }

    /// Creates the error of parameters or images that exclude each other.
    pub(in crate::http) fn conflict(reason: &str) -> Self {
        Self::Conflict(reason.to_owned())
    }
}

impl From<LookupError> for RequestError {
    fn from(error: LookupError) -> Self {
        Self::Serving(error.into())
    }
}

impl From<JobError> for RequestError {
    fn from(error: JobError) -> Self {
        Self::Serving(error.into())
    }
}

impl IntoResponse for RequestError {
    fn into_response(self) -> Response<Body> {
        let cause = if let Self::Serving(error) = &self { error.cause() } else { None };
        problem::response(&self, cause)
    }
}

impl ToProblem for RequestError {
    fn kind(&self) -> ProblemKind {
        let kind = ProblemKind::new;
        match self {
            Self::EmptyBody => kind(400, "empty-body", "Empty body", "Send the bytes of an image."),
            Self::EmptyPart { .. } => kind(400, "empty-part", "Empty part", "Send the bytes of an image in it."),
            Self::MissingPart { .. } => {
                kind(400, "missing-part", "Missing part", "Add the part to the form, or the field to the JSON object.")
            }
            Self::RepeatedPart { .. } => kind(422, "too-many-images", "Too many images", "Send it once."),
            Self::TooManyImages { .. } => {
                kind(422, "too-many-images", "Too many images", "Send the images in several requests.")
            }
            Self::TooManyParameters { .. } => {
                kind(413, "too-many-parameters", "Too many parameters", "See /docs for the parameters of this path.")
            }
            Self::ParametersTooLarge { .. } => {
                kind(413, "parameters-too-large", "Parameters too large", "Send fewer points, or several requests.")
            }
            Self::UnknownParameter { .. } => {
                kind(400, "unknown-parameter", "Unknown parameter", "See /docs for the parameters of this path.")
            }
            Self::MalformedParameter { .. } => {
                kind(400, "malformed-parameter", "Malformed parameter", "See /docs for what this parameter takes.")
            }
            Self::MalformedJson { .. } => kind(
                400,
                "malformed-parameter",
                "Malformed parameter",
                "Send one JSON text, such as [[12.5, 40], [80, 120]]: json.dumps in Python, JSON.stringify in JavaScript.",
            ),
            Self::MalformedBody(error) => kind(400, "malformed-body", "Malformed body", error.hint()),
            Self::NotBytes { .. } => kind(
                415,
                "unsupported-image",
                "Not an image we read",
                "Send a file's bytes: -F NAME=@FILE in curl, files={NAME: open(FILE, 'rb')} in Python's requests, a Blob in JavaScript's FormData; base64 is taken in JSON.",
            ),
            Self::MalformedInference(_) => kind(
                400,
                "malformed-inference",
                "Malformed inference request",
                "Send pixels as the metadata of the model describes them: UINT8 [N, height, width, 3], height and width multiples of 32. Image files of any size are taken by POST /features.",
            ),
            Self::SideNotMultiple { .. } => kind(
                422,
                "side-not-multiple",
                "Side not a multiple",
                "Resize or pad the images; /features takes them at any size.",
            ),
            Self::PointNotFinite => kind(422, "point-not-finite", "Point not finite", "Send finite coordinates only."),
            Self::TooManyPoints { .. } => {
                kind(422, "too-many-points", "Too many points", "Send fewer points, or several requests.")
            }
            Self::ContentType { expected, .. } => {
                kind(415, "unsupported-content-type", "Unsupported content type", expected)
            }
            Self::ContentEncoding { .. } => {
                kind(415, "unsupported-content-encoding", "Unsupported content encoding", "Send the body as it is.")
            }
            Self::NotAcceptable { .. } => {
                kind(406, "not-acceptable", "Not acceptable", "Change `Accept`, or name a `format`.")
            }
            Self::BodyTooLarge { .. } => kind(413, "body-too-large", "Body too large", "Send a smaller image."),
            Self::BodyTooSlow { .. } => kind(408, "body-too-slow", "Body too slow", "Try again, or send less."),
            Self::Conflict(_) => {
                kind(422, "conflicting-parameters", "Conflicting parameters", "Leave out one of the two.")
            }
            Self::NoSuchPath => kind(
                404,
                "no-such-path",
                "No such path",
                "See /docs for the paths there are; images are sent to POST /features and POST /correspondence.",
            ),
            Self::MethodNotAllowed { .. } => {
                kind(405, "method-not-allowed", "Method not allowed", "Use a method of the Allow header.")
            }
            Self::Change(error) => error.kind(),
            Self::Serving(error) => error.kind(),
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::BodyTooLarge { limit } | Self::ParametersTooLarge { limit, .. } => Some(*limit),
            Self::BodyTooSlow { limit } => Some(limit.as_secs()),
            Self::SideNotMultiple { multiple, .. } => Some(u64::from(*multiple)),
            Self::RepeatedPart { .. } => Some(1),
            Self::TooManyPoints { limit, .. } | Self::TooManyImages { limit } | Self::TooManyParameters { limit } => {
                Some(*limit as u64)
            }
            Self::Change(error) => error.limit(),
            Self::Serving(error) => error.limit(),
            Self::EmptyBody
            | Self::EmptyPart { .. }
            | Self::MissingPart { .. }
            | Self::UnknownParameter { .. }
            | Self::MalformedParameter { .. }
            | Self::MalformedJson { .. }
            | Self::MalformedBody(_)
            | Self::NotBytes { .. }
            | Self::MalformedInference(_)
            | Self::PointNotFinite
            | Self::ContentType { .. }
            | Self::ContentEncoding { .. }
            | Self::NotAcceptable { .. }
            | Self::Conflict(_)
            | Self::NoSuchPath
            | Self::MethodNotAllowed { .. } => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::Serving(error) = self { error.retry_after() } else { None }
    }
}
