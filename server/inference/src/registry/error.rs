//! Errors of loading a repository, of changing what is loaded, and of looking up models.

use std::error::Error;
use std::path::PathBuf;

use densecl_models::ModelError;
use densecl_models::repository::RepositoryError;

use crate::backend::BackendError;
use crate::batch::BatchError;

/// The repository cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be listed, or is empty.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file in it is not a model.
    #[error("cannot load the model {path}")]
    Model {
        /// The file.
        path: PathBuf,
        /// The fault.
        source: ModelError,
    },
    /// No model has the layers that are to be warmed up.
    #[error("no model has the layers `{layers}` that are to be warmed up")]
    WarmUpLayers {
        /// The layers.
        layers: String,
    },
    /// A model does not run.
    #[error("the model {path} does not run")]
    WarmUp {
        /// The file.
        path: PathBuf,
        /// The error of the run.
        source: BatchError,
    },
}

impl OpenError {
    /// A text that names no path of this machine, for clients.
    pub fn reason(&self) -> String {
        match self {
            Self::Repository(RepositoryError::Empty { .. }) => "the model repository holds no model".to_owned(),
            Self::Repository(RepositoryError::Unreadable { source, .. }) => {
                format!("the model repository cannot be read: {source}")
            }
            Self::Model { source, .. } => model_reason(source),
            Self::WarmUpLayers { .. } => self.to_string(),
            Self::WarmUp { source, .. } => run_reason(source),
        }
    }
}

fn model_reason(error: &ModelError) -> String {
    match error {
        ModelError::Io { path, source } => {
            let name = path.file_name().unwrap_or_default().display();
            format!("{name} cannot be read: {source}")
        }
        // These name files without their folders.
        ModelError::FileTooLarge { .. }
        | ModelError::NotOnnx(_)
        | ModelError::ExternalData { .. }
        | ModelError::Unsuitable(_)
        | ModelError::NoManifest
        | ModelError::Manifest(_)
        | ModelError::UnknownOutput(_) => chain(error),
    }
}

fn run_reason(error: &BatchError) -> String {
    match error {
        BatchError::Backend(error) => backend_reason(error),
        BatchError::Overloaded { .. } | BatchError::DeadlinePassed | BatchError::Closed | BatchError::Panicked(_) => {
            chain(error)
        }
    }
}

fn backend_reason(error: &BackendError) -> String {
    match error {
        BackendError::Model { source, .. } => model_reason(source),
        BackendError::Session { source, .. } => format!("ONNX Runtime cannot load it: {}", chain(&**source)),
        BackendError::Run(source) => format!("it does not run: {}", chain(&**source)),
        BackendError::FileChanged { .. } | BackendError::Output { .. } => chain(error),
    }
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some errors say their cause themselves.
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A model could not be loaded or unloaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such model.
    #[error("there is no model `{name}` in the repository")]
    Unknown {
        /// The name that was asked for.
        name: String,
    },
    /// It is there but cannot be served. The versions that were served before still are.
    #[error("model `{name}` cannot be loaded: {reason}; what was served before still is")]
    Failed {
        /// The model.
        name: String,
        /// The faults, version by version.
        reason: String,
    },
    /// The repository cannot be read. The versions that were served before still are.
    #[error("{reason}; what was served before still is")]
    Repository {
        /// The fault.
        reason: String,
    },
}

/// A request names a model, version or layer that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No model of this name.
    #[error("there is no model `{name}`; the models are: {known}")]
    UnknownModel {
        /// The name that was asked for.
        name: String,
        /// The names that exist.
        known: String,
    },
    /// There is no model that can be run at all.
    #[error("no model is loaded")]
    NoModel,
    /// The model has no such version.
    #[error("model `{name}` has no version {version}; its versions are: {known}")]
    UnknownVersion {
        /// The model.
        name: String,
        /// The name that was asked for.
        version: u32,
        /// The names that exist.
        known: String,
    },
    /// The version is in the repository but is not served.
    #[error("version {version} of model `{name}` is not loaded: {reason}")]
    NotLoaded {
        /// The model.
        name: String,
        /// The version.
        version: u32,
        /// Why not.
        reason: String,
    },
    /// The model has no such layer.
    #[error("model `{name}` has no layer `{layer}`; its layers are: {known}")]
    UnknownLayer {
        /// The model.
        name: String,
        /// The name that was asked for.
        layer: String,
        /// The names that exist.
        known: String,
    },
    /// A hypercolumn names a layer twice.
    #[error("`{layers}` names a layer more than once")]
    RepeatedLayer {
        /// The name that was asked for.
        layers: String,
    },
    /// A hypercolumn names the vector of the whole image.
    #[error("`{layers}` stacks `global`, which is one vector of the whole image, with layers, which are maps")]
    StackedGlobal {
        /// The name that was asked for.
        layers: String,
    },
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_reason_names_no_folder() {
        let secret = || PathBuf::from("/secret/m/1/model.onnx");
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let io = || ModelError::Io { path: secret(), source: gone() };
        let backend = BackendError::Model { path: secret(), source: io() };
        for error in [
            OpenError::Repository(RepositoryError::Unreadable { path: secret(), source: gone() }),
            OpenError::Repository(RepositoryError::Empty { path: secret() }),
            OpenError::Model { path: secret(), source: io() },
            OpenError::Model { path: secret(), source: ModelError::NoManifest },
            OpenError::WarmUp { path: secret(), source: BatchError::Backend(Arc::new(backend)) },
        ] {
            let reason = error.reason();
            assert!(!reason.contains("secret") && !reason.is_empty(), "{reason}");
        }
    }
}
