//! What can be wrong with a repository, with a model in it, and with what is asked for.

use std::error::Error;
use std::path::PathBuf;

use densecl_models::ModelError;
use densecl_models::repository::RepositoryError;

use crate::batch::BatchError;
use crate::engine::EngineError;

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
        /// What is wrong with it.
        source: ModelError,
    },
    /// No model has the layers that were to be rehearsed.
    #[error("no model has the layers `{layers}` that are to be rehearsed")]
    Rehearsal {
        /// The layers.
        layers: String,
    },
    /// A model does not run.
    #[error("the model {path} does not run")]
    WarmUp {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        source: BatchError,
    },
}

impl OpenError {
    /// What is wrong, for people who must not learn where things lie on this machine.
    pub fn reason(&self) -> String {
        match self {
            Self::Repository(RepositoryError::Empty { .. }) => "the model repository holds no model".to_owned(),
            Self::Repository(RepositoryError::Unreadable { source, .. }) => {
                format!("the model repository cannot be read: {source}")
            }
            Self::Model { source, .. } => model_reason(source),
            Self::Rehearsal { .. } => self.to_string(),
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
        _ => chain(error),
    }
}

fn run_reason(error: &BatchError) -> String {
    let BatchError::Engine(error) = error else { return chain(error) };
    match &**error {
        EngineError::Model { source, .. } => model_reason(source),
        EngineError::Session { source, .. } => format!("ONNX Runtime cannot load it: {}", chain(source)),
        EngineError::Run(source) => format!("it does not run: {}", chain(source)),
        error => chain(error),
    }
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
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

/// A model was not loaded, or not unloaded, as somebody asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such model.
    #[error("there is no model `{name}` in the repository")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It is there but cannot be served. What was served before still is.
    #[error("model `{name}` cannot be loaded: {reason}; what was served before still is")]
    Failed {
        /// The model.
        name: String,
        /// What is wrong, version by version.
        reason: String,
    },
    /// Its repository cannot be read. What was served before still is.
    #[error("{reason}; what was served before still is")]
    Repository {
        /// What is wrong.
        reason: String,
    },
}

/// Something was asked for that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LookupError {
    /// No model of this name.
    #[error("there is no model `{name}`; the models are: {known}")]
    UnknownModel {
        /// What was asked for.
        name: String,
        /// What there is.
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
        /// What was asked for.
        version: u32,
        /// What there is.
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
        /// What was asked for.
        layer: String,
        /// What there is.
        known: String,
    },
    /// A hypercolumn names a layer twice.
    #[error("`{layers}` names a layer more than once")]
    RepeatedLayer {
        /// What was asked for.
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
        let engine = EngineError::Model { path: secret(), source: io() };
        for error in [
            OpenError::Repository(RepositoryError::Unreadable { path: secret(), source: gone() }),
            OpenError::Repository(RepositoryError::Empty { path: secret() }),
            OpenError::Model { path: secret(), source: io() },
            OpenError::Model { path: secret(), source: ModelError::NoManifest },
            OpenError::WarmUp { path: secret(), source: BatchError::Engine(Arc::new(engine)) },
        ] {
            let reason = error.reason();
            assert!(!reason.contains("secret") && !reason.is_empty(), "{reason}");
        }
    }
}
