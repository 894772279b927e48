//! Problems of the use cases.

use std::time::Duration;

use densecl_inference::registry::{ChangeError, LookupError};

use super::{ProblemKind, RETRY_AFTER, ToProblem};
use crate::serving::ServingError;

/// Longest `Retry-After`, because waits are not predicted further ahead.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(1);

impl ToProblem for ServingError {
    fn kind(&self) -> ProblemKind {
        let kind = ProblemKind::new;
        match self {
            Self::Loading => kind(503, "loading", "Loading", "Try again after Retry-After, or elsewhere."),
            Self::Draining => kind(503, "draining", "Draining", "Try another replica."),
            Self::Overloaded { .. } => {
                kind(503, "overloaded", "Overloaded", "Try again after Retry-After, or elsewhere.")
            }
            Self::TooMuchMemory { .. } => kind(
                413,
                "too-much-memory",
                "Too much memory",
                "Send a smaller image, or ask for a coarser layer or a smaller side.",
            ),
            Self::ReplyTooLarge { .. } => {
                kind(413, "reply-too-large", "Reply too large", "Ask for a coarser layer, a smaller side or float16.")
            }
            Self::DeadlinePassed { .. } => {
                kind(504, "deadline-passed", "Deadline passed", "Try again, or ask for a smaller side.")
            }
            Self::ModelFileChanged { .. } => kind(
                503,
                "model-file-changed",
                "Model file changed",
                "An administrator has to load the model again. Replace model files by a rename.",
            ),
            Self::SideOutOfRange { .. } => {
                kind(422, "side-out-of-range", "Side out of range", "Choose a side within the range.")
            }
            Self::MaskSize { .. } => {
                kind(422, "mask-size", "Mask of another size", "Send a mask as large as the upright source image.")
            }
            Self::UnknownFeatureId { .. } => kind(
                404,
                "unknown-feature-id",
                "Unknown feature id",
                "It was never here, or has expired: send the image again as `source` or `target`.",
            ),
            Self::TooManyComparisons { .. } => kind(
                422,
                "too-many-comparisons",
                "Too many comparisons",
                "Ask for a coarser layer, a smaller side or `points`.",
            ),
            Self::Internal(_) => {
                kind(500, "internal", "Internal error", "Try again; if it persists, report the X-Request-Id.")
            }
            Self::Decode(error) => error.kind(),
            Self::Lookup(error) => error.kind(),
            Self::Point(error) => error.kind(),
            Self::Grid(error) => error.kind(),
            Self::Window(error) => error.kind(),
            Self::Components(error) => error.kind(),
            Self::Mask(error) => error.kind(),
            Self::OfImage { error, .. } => error.kind(),
            Self::Shared(error) => error.kind(),
        }
    }

    fn limit(&self) -> Option<u64> {
        match self {
            Self::TooMuchMemory { limit, .. }
            | Self::ReplyTooLarge { limit, .. }
            | Self::TooManyComparisons { limit, .. } => Some(*limit),
            Self::DeadlinePassed { limit } => Some(limit.as_secs()),
            Self::SideOutOfRange { max_side_px, .. } => Some(u64::from(*max_side_px)),
            Self::Decode(error) => error.limit(),
            Self::Lookup(error) => error.limit(),
            Self::Point(error) => error.limit(),
            Self::Grid(error) => error.limit(),
            Self::Window(error) => error.limit(),
            Self::Components(error) => error.limit(),
            Self::Mask(error) => error.limit(),
            Self::OfImage { error, .. } => error.limit(),
            Self::Shared(error) => error.limit(),
            Self::Loading
            | Self::Draining
            | Self::Overloaded { .. }
            | Self::ModelFileChanged { .. }
            | Self::MaskSize { .. }
            | Self::UnknownFeatureId { .. }
            | Self::Internal(_) => None,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } => Some((*retry_after).clamp(RETRY_AFTER, LONGEST_RETRY_AFTER)),
            Self::Shared(error) => error.retry_after(),
            _ => (self.kind().status == 503).then_some(RETRY_AFTER),
        }
    }
}

impl ToProblem for LookupError {
    fn kind(&self) -> ProblemKind {
        let hint = "See /models for what there is.";
        match self {
            Self::UnknownModel { .. } => ProblemKind::new(404, "unknown-model", "Unknown model", hint),
            Self::UnknownVersion { .. } => ProblemKind::new(404, "unknown-version", "Unknown version", hint),
            Self::NotLoaded { .. } | Self::NoModel => {
                ProblemKind::new(404, "model-not-loaded", "Model not loaded", hint)
            }
            Self::UnknownLayer { .. } => ProblemKind::new(404, "unknown-layer", "Unknown layer", hint),
            Self::RepeatedLayer { .. } => {
                ProblemKind::new(422, "repeated-layer", "Repeated layer", "Name each layer of a hypercolumn once.")
            }
            Self::StackedGlobal { .. } => ProblemKind::new(
                422,
                "conflicting-parameters",
                "Conflicting parameters",
                "Ask for `global` alone, or for layers.",
            ),
        }
    }

    fn limit(&self) -> Option<u64> {
        None
    }
}

impl ToProblem for ChangeError {
    fn kind(&self) -> ProblemKind {
        match self {
            Self::Unknown { .. } => {
                ProblemKind::new(404, "unknown-model", "Unknown model", "See /models for what there is.")
            }
            Self::Failed { .. } | Self::Repository { .. } => ProblemKind::new(
                422,
                "cannot-load-model",
                "Cannot load the model",
                "Correct what is wrong, then load it again.",
            ),
        }
    }

    fn limit(&self) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_of_an_internal_error_stays_inside() {
        let error = ServingError::internal(anyhow::anyhow!("/secret/path is gone"));
        let problem = serde_json::to_string(&error.problem()).unwrap();
        assert!(!problem.contains("secret"), "{problem}");
    }

    #[test]
    fn overload_says_when_to_retry() {
        let overloaded = |seconds| ServingError::Overloaded { retry_after: Duration::from_secs(seconds) };
        assert_eq!(overloaded(0).problem().retry_after, Some(RETRY_AFTER));
        assert_eq!(overloaded(7).problem().retry_after, Some(Duration::from_secs(7)));
        assert_eq!(ServingError::Loading.problem().retry_after, Some(RETRY_AFTER));
        assert_eq!(ServingError::UnknownFeatureId { id: String::new() }.problem().retry_after, None);
    }

    #[test]
    fn a_limit_is_a_number_of_its_own() {
        let problem = ServingError::SideOutOfRange { side_px: 0, max_side_px: 2048 }.problem();
        assert_eq!((problem.status, problem.limit), (422, Some(2048)));
        assert_eq!(problem.kind, "/problems/side-out-of-range");
    }
}
