//! Errors of the monitor.

use std::io;
use std::path::{Path, PathBuf};

/// A file of the monitor that could not be read or written: a full disk, most often.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// The operating system refused.
    #[error("cannot write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// A picture could not be encoded.
    #[error("cannot encode the picture {path}")]
    Picture {
        /// The file it was for.
        path: PathBuf,
        /// The error.
        #[source]
        source: image::ImageError,
    },
    /// A line of metrics could not be encoded.
    #[error("cannot encode the metrics of step {step}")]
    Metrics {
        /// The step.
        step: u64,
        /// The error.
        #[source]
        source: serde_json::Error,
    },
}

impl MonitorError {
    /// For `map_err`: an operation on `path` failed.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}
