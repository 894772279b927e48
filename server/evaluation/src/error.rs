//! Failures of an evaluation.

use std::path::PathBuf;

use densecl_vision::matching::MatchError;

use super::dataset::DatasetError;

/// The error of a method.
pub type FeatureMethodError = Box<dyn std::error::Error + Send + Sync>;

/// The reason why an evaluation failed.
#[derive(Debug, thiserror::Error)]
pub enum EvaluationError {
    /// The data set is invalid.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// The method failed.
    #[error("nothing was found in {}", picture.display())]
    Method {
        /// The image on which it failed.
        picture: PathBuf,
        /// The cause.
        #[source]
        source: FeatureMethodError,
    },
    /// The method's maps of two images cannot be compared.
    #[error("the features of {} cannot be compared with those of the first picture", picture.display())]
    Match {
        /// The second image.
        picture: PathBuf,
        /// The cause.
        #[source]
        source: MatchError,
    },
}
