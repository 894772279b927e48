//! Errors of the use cases. Their problem documents are in `http/problem/serving.rs`.

use std::sync::Arc;
use std::time::Duration;

use densecl_inference::backend::BackendError;
use densecl_inference::batch::BatchError;
use densecl_inference::registry::LookupError;
use densecl_vision::features::{ComponentsError, GridError, PointError, RenderError, WindowError};
use densecl_vision::image::{DecodeError, ImageSize, LabelError};
use densecl_vision::matching::MatchError;

use super::cpu_pool::JobError;

/// Features or correspondences that were not computed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant describes it")]
pub enum ServingError {
    #[error("the models are still loading")]
    Loading,
    #[error("the server is shutting down")]
    Draining,
    #[error("the server has as much to do as it can answer in time")]
    Overloaded { retry_after: Duration },
    #[error("the image and its feature maps would take {bytes} bytes of memory; all requests together have {limit}")]
    TooMuchMemory { bytes: u64, limit: u64 },
    #[error("the reply would have {bytes} bytes; at most {limit} are sent")]
    ReplyTooLarge { bytes: u64, limit: u64 },
    #[error("there was no answer within {} s", limit.as_secs_f32())]
    DeadlinePassed { limit: Duration },
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Lookup(#[from] LookupError),
    #[error("the file of model `{name}`, version {version}, was overwritten after it was loaded")]
    ModelFileChanged { name: String, version: u32 },
    #[error("side must be within 32 to {max_side_px} pixels, not {side_px}")]
    SideOutOfRange { side_px: u64, max_side_px: u32 },
    #[error(transparent)]
    Point(#[from] PointError),
    #[error(transparent)]
    Grid(#[from] GridError),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(transparent)]
    Components(#[from] ComponentsError),
    #[error(transparent)]
    Mask(#[from] LabelError),
    #[error(
        "the mask has {} x {} pixels, and the upright source {} x {}",
        found.width, found.height, expected.width, expected.height
    )]
    MaskSize { found: ImageSize, expected: ImageSize },
    #[error("no features are kept under the id `{id}`")]
    UnknownFeatureId { id: String },
    #[error("{count} points against {cells} cells are too many comparisons; at most {limit} are made")]
    TooManyComparisons { count: u64, cells: u64, limit: u64 },
    #[error("{name}: {error}")]
    OfImage { name: String, error: Box<Self> },
    #[error(transparent)]
    Shared(Arc<Self>),
    #[error("something went wrong inside the server")]
    Internal(#[source] anyhow::Error),
}

impl ServingError {
    /// Creates the error of a failure inside the server; `cause` is logged and never sent.
    pub fn internal(cause: impl Into<anyhow::Error>) -> Self {
        Self::Internal(cause.into())
    }

    /// Adds the name of the image that the error is about. Errors that do not depend on the image stay as they are.
    #[must_use]
    pub fn for_image(self, name: String) -> Self {
        if self.is_about_an_image() { Self::OfImage { name, error: Box::new(self) } } else { self }
    }

    /// The cause of an internal error, for the log.
    pub fn cause(&self) -> Option<&anyhow::Error> {
        match self {
            Self::Internal(cause) => Some(cause),
            Self::Shared(error) => error.cause(),
            _ => None,
        }
    }

    /// True if another request with the same image fails as well: the error does not depend on this request's time and
    /// memory.
    pub(super) fn is_caused_by_image(&self) -> bool {
        matches!(self, Self::Decode(_) | Self::Internal(_))
    }

    /// True if the bytes of an image cannot be decoded.
    pub(super) fn is_about_bytes(&self) -> bool {
        match self {
            Self::Decode(_) => true,
            Self::Shared(error) => error.is_about_bytes(),
            _ => false,
        }
    }

    fn is_about_an_image(&self) -> bool {
        match self {
            Self::TooMuchMemory { .. }
            | Self::ReplyTooLarge { .. }
            | Self::Decode(_)
            | Self::Lookup(_)
            | Self::SideOutOfRange { .. }
            | Self::Point(_)
            | Self::Grid(_)
            | Self::Window(_)
            | Self::Components(_)
            | Self::Mask(_)
            | Self::MaskSize { .. }
            | Self::UnknownFeatureId { .. }
            | Self::TooManyComparisons { .. }
            | Self::OfImage { .. } => true,
            Self::Loading
            | Self::Draining
            | Self::Overloaded { .. }
            | Self::DeadlinePassed { .. }
            | Self::ModelFileChanged { .. }
            | Self::Internal(_) => false,
            Self::Shared(error) => error.is_about_an_image(),
        }
    }
}

impl From<RenderError> for ServingError {
    fn from(error: RenderError) -> Self {
        match error {
            RenderError::Window(error) => error.into(),
            RenderError::Components(error) => error.into(),
        }
    }
}

impl From<BatchError> for ServingError {
    fn from(error: BatchError) -> Self {
        match error {
            BatchError::Overloaded { retry_after } => Self::Overloaded { retry_after },
            BatchError::Closed => Self::Draining,
            // The request's deadline, which sets the limit, usually passes first.
            BatchError::DeadlinePassed => Self::DeadlinePassed { limit: Duration::ZERO },
            BatchError::Panicked(_) => Self::internal(error),
            BatchError::Backend(ref inner) => match &**inner {
                BackendError::FileChanged { name, version } => {
                    Self::ModelFileChanged { name: name.clone(), version: *version }
                }
                BackendError::Model { .. }
                | BackendError::Session { .. }
                | BackendError::Run(_)
                | BackendError::Output { .. } => Self::internal(error),
            },
        }
    }
}

impl From<MatchError> for ServingError {
    fn from(error: MatchError) -> Self {
        match error {
            // The request was dropped or its deadline has passed, so the limit is not sent.
            MatchError::Cancelled(_) => Self::DeadlinePassed { limit: Duration::ZERO },
            // Both maps come from one model and one layer set.
            MatchError::Channels { .. } => Self::internal(error),
        }
    }
}

impl From<JobError> for ServingError {
    fn from(error: JobError) -> Self {
        Self::internal(error)
    }
}
