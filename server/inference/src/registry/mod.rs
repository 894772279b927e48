//! The models that are served, by name and version.
//!
//! A [`Registry`] holds the models of one moment and never changes; requests keep the models that they found in it.
//! [`ModelLoader`] makes the next one while the server runs: a new model is read, checked and run on the engines before
//! requests can find it, and one that fails leaves the old one in its place.
//!
//! It holds manifests and open files, never weights; engines hold those.

mod error;
mod loader;
mod served_model;
#[cfg(test)]
mod tests;
mod warm_up_layers;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use densecl_models::repository;

pub use self::error::{ChangeError, LookupError, OpenError};
pub use self::loader::{Changes, ModelLoader};
pub use self::served_model::{ModelInput, ServedModel};
pub use self::warm_up_layers::{WarmUpLayers, WarmUpLayersParseError};
use crate::backend::Backend;
pub use crate::backend::Provider;
use crate::batch::Batcher;
use crate::model_file::ModelFile;
use crate::onnx_runtime::OnnxRuntimeBackend;

/// The models that requests can ask for.
pub struct Registry<B: Backend = OnnxRuntimeBackend> {
    models: BTreeMap<String, Versions<B>>,
    batcher: Batcher<B>,
}

/// The versions of a model, by number.
type Versions<B> = BTreeMap<u32, Version<B>>;

/// One version of a model.
struct Version<B: Backend> {
    served: Option<ServedModel<B>>,
    /// The fault of the file that is there now, or the reason why it is not served.
    problem: Option<Arc<str>>,
}

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// It is read and run for the first time.
    Loading,
    /// It answers.
    Ready,
    /// It does not answer, for a reason.
    Unavailable,
}

/// One version, as clients see it.
pub struct VersionStatus<'a, B: Backend = OnnxRuntimeBackend> {
    /// The model's name.
    pub name: &'a str,
    /// The version.
    pub version: u32,
    /// Its state.
    pub state: VersionState,
    /// The reason why it does not answer; of a version that does, what is wrong with the file that should
    /// have replaced it.
    pub reason: Option<&'a str>,
    /// The model, if it answers.
    pub served: Option<&'a ServedModel<B>>,
}

impl<B: Backend> Version<B> {
    fn ready(served: ServedModel<B>) -> Self {
        Self { served: Some(served), problem: None }
    }

    fn loading() -> Self {
        Self { served: None, problem: None }
    }

    fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self { served: None, problem: Some(reason.into()) }
    }

    fn state(&self) -> VersionState {
        match (&self.served, &self.problem) {
            (Some(_), _) => VersionState::Ready,
            (None, Some(_)) => VersionState::Unavailable,
            (None, None) => VersionState::Loading,
        }
    }
}

impl<B: Backend> Clone for Registry<B> {
    fn clone(&self) -> Self {
        Self { models: self.models.clone(), batcher: self.batcher.clone() }
    }
}

impl<B: Backend> Clone for Version<B> {
    fn clone(&self) -> Self {
        Self { served: self.served.clone(), problem: self.problem.clone() }
    }
}

impl<B: Backend> Clone for VersionStatus<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for VersionStatus<'_, B> {}

impl<B: Backend<Model = ModelFile>> Registry<B> {
    /// Reads every manifest below `root` and warms up the newest version of each model: its default layer, and those of
    /// `warm_up_layers` that it has.
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: &Path, batcher: Batcher<B>, warm_up_layers: &[WarmUpLayers]) -> Result<Self, OpenError> {
        let mut models: BTreeMap<String, Versions<B>> = BTreeMap::new();
        for found in repository::scan(root)? {
            let served = ServedModel::open(&found, &batcher)?;
            models.entry(found.name).or_default().insert(found.version, Version::ready(served));
        }
        let registry = Self { models, batcher };
        let newest: Vec<&ServedModel<B>> = registry.models.values().filter_map(newest).collect();
        for WarmUpLayers { layers, .. } in warm_up_layers {
            if !newest.iter().any(|model| model.has_layers(layers)) {
                return Err(OpenError::WarmUpLayers { layers: layers.clone() });
            }
        }
        newest.into_iter().try_for_each(|model| model.warm_up(warm_up_layers))?;
        Ok(registry)
    }

    /// The model of this name and version; the first model and its newest version if not given.
    ///
    /// # Errors
    /// If there is none, with what there is.
    pub fn find(&self, name: Option<&str>, version: Option<u32>) -> Result<&ServedModel<B>, LookupError> {
        let mut answering = self.models.iter().filter(|(_, versions)| newest(versions).is_some());
        let (name, versions) = match name {
            None => answering.next().ok_or(LookupError::NoModel)?,
            Some(name) => self.models.get_key_value(name).ok_or_else(|| LookupError::UnknownModel {
                name: name.to_owned(),
                known: join_names(answering.map(|(name, _)| name)),
            })?,
        };
        find_version(name, versions, version)
    }

    /// All versions of all models that answer, by name and ascending version.
    pub fn all(&self) -> impl Iterator<Item = &ServedModel<B>> {
        self.models.values().flat_map(|versions| versions.values().filter_map(|version| version.served.as_ref()))
    }

    /// All versions of all models, also those that do not answer, by name and ascending version.
    pub fn versions(&self) -> impl Iterator<Item = VersionStatus<'_, B>> {
        self.models.iter().flat_map(|(name, versions)| {
            versions.iter().map(|(&version, it)| VersionStatus {
                name,
                version,
                state: it.state(),
                reason: it.problem.as_deref(),
                served: it.served.as_ref(),
            })
        })
    }

    /// The device of each engine.
    pub fn providers(&self) -> &[Provider] {
        self.batcher.providers()
    }

    /// How long an image that came now would wait for its turn.
    pub fn predicted_wait(&self) -> Duration {
        self.batcher.predicted_wait()
    }
}

fn newest<B: Backend>(versions: &Versions<B>) -> Option<&ServedModel<B>> {
    versions.values().rev().find_map(|version| version.served.as_ref())
}

fn find_version<'a, B: Backend>(
    name: &str,
    versions: &'a Versions<B>,
    version: Option<u32>,
) -> Result<&'a ServedModel<B>, LookupError> {
    let found = match version {
        Some(version) => versions.get_key_value(&version),
        // The newest that answers, and if none does the newest of all.
        None => versions.iter().rev().find(|(_, it)| it.served.is_some()).or_else(|| versions.last_key_value()),
    };
    let Some((&version, found)) = found else {
        let known = join_names(versions.iter().filter(|(_, it)| it.served.is_some()).map(|(version, _)| version));
        return Err(LookupError::UnknownVersion { name: name.to_owned(), version: version.unwrap_or_default(), known });
    };
    let reason = || found.problem.as_deref().unwrap_or("it is being loaded").to_owned();
    found.served.as_ref().ok_or_else(|| LookupError::NotLoaded { name: name.to_owned(), version, reason: reason() })
}

fn join_names<T: ToString>(names: impl Iterator<Item = T>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}
