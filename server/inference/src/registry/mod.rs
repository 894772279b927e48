//! The models that are served, by name and version.
//!
//! A [`Registry`] is what was served at one moment and never changes; requests keep what they found
//! in it. [`ModelLoader`] makes the next one while the server runs: what is new is read, checked and
//! run on the engines before anybody can ask for it, and what fails leaves the old one in its place.
//!
//! It holds manifests and open files, never weights; those are the engine's.

mod failure;
mod loader;
mod rehearsal;
mod served_model;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use densecl_models::repository;

pub use self::failure::{ChangeError, LookupError, OpenError};
pub use self::loader::{Changes, ModelLoader};
pub use self::rehearsal::{Rehearsal, RehearsalParseError};
pub use self::served_model::{ModelInput, ServedModel};
use crate::batch::Batcher;
pub use crate::engine::Provider;

/// Everything that can be asked for.
#[derive(Clone)]
pub struct Registry {
    models: BTreeMap<String, Versions>,
    batcher: Batcher,
}

/// All that is known of the versions of a model.
type Versions = BTreeMap<u32, Version>;

/// What is known of one version.
#[derive(Clone)]
struct Version {
    served: Option<ServedModel>,
    /// What is wrong with the file that is there now, or why it is not served.
    problem: Option<Arc<str>>,
}

/// Where a version is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionState {
    /// It is read and run for the first time.
    Loading,
    /// It answers.
    Ready,
    /// It does not, for a reason.
    Unavailable,
}

/// One version, as others see it.
#[derive(Clone, Copy)]
pub struct VersionStatus<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The version.
    pub version: u32,
    /// Where it is in its life.
    pub state: VersionState,
    /// Why it does not answer; of a version that does, what is wrong with the file that should
    /// have replaced it.
    pub reason: Option<&'a str>,
    /// The model, if it answers.
    pub served: Option<&'a ServedModel>,
}

impl Version {
    fn ready(served: ServedModel) -> Self {
        Self { served: Some(served), problem: None }
    }

    fn loading() -> Self {
        Self { served: None, problem: None }
    }

    fn unavailable(reason: impl Into<Arc<str>>) -> Self {
        Self { served: None, problem: Some(reason.into()) }
    }

    fn state(&self) -> VersionState {
        match self {
            Self { served: Some(_), .. } => VersionState::Ready,
            Self { problem: Some(_), .. } => VersionState::Unavailable,
            _ => VersionState::Loading,
        }
    }
}

impl Registry {
    /// Reads every manifest below `root` and runs the newest version of each model once: its
    /// default layer, and those of `rehearsals` that it has.
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: &Path, batcher: Batcher, rehearsals: &[Rehearsal]) -> Result<Self, OpenError> {
        let mut models: BTreeMap<String, Versions> = BTreeMap::new();
        for found in repository::scan(root)? {
            let served = ServedModel::open(&found, &batcher)?;
            models.entry(found.name).or_default().insert(found.version, Version::ready(served));
        }
        let registry = Self { models, batcher };
        let newest: Vec<&ServedModel> = registry.models.values().filter_map(newest).collect();
        for rehearsal in rehearsals {
            if !newest.iter().any(|model| model.has(rehearsal)) {
                return Err(OpenError::Rehearsal { layers: rehearsal.layers.clone() });
            }
        }
        newest.into_iter().try_for_each(|model| model.warm_up(rehearsals))?;
        Ok(registry)
    }

    /// The model of this name and version; the first model and its newest version if not given.
    ///
    /// # Errors
    /// If there is none, with what there is.
    pub fn find(&self, name: Option<&str>, version: Option<u32>) -> Result<&ServedModel, LookupError> {
        let mut answering = self.models.iter().filter(|(_, versions)| newest(versions).is_some());
        let (name, versions) = match name {
            None => answering.next().ok_or(LookupError::NoModel)?,
            Some(name) => self.models.get_key_value(name).ok_or_else(|| LookupError::UnknownModel {
                name: name.to_owned(),
                known: listed(answering.map(|(name, _)| name)),
            })?,
        };
        of_version(name, versions, version)
    }

    /// All versions of all models that answer, by name and ascending version.
    pub fn all(&self) -> impl Iterator<Item = &ServedModel> {
        self.models.values().flat_map(|versions| versions.values().filter_map(|version| version.served.as_ref()))
    }

    /// All versions of all models, also those that do not answer, by name and ascending version.
    pub fn versions(&self) -> impl Iterator<Item = VersionStatus<'_>> {
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

    /// What the models really run on: one entry for each engine.
    pub fn providers(&self) -> &[Provider] {
        self.batcher.providers()
    }

    /// How long an image that came now would wait for its turn.
    pub fn predicted_wait(&self) -> Duration {
        self.batcher.predicted_wait()
    }
}

fn newest(versions: &Versions) -> Option<&ServedModel> {
    versions.values().rev().find_map(|version| version.served.as_ref())
}

fn of_version<'a>(name: &str, versions: &'a Versions, version: Option<u32>) -> Result<&'a ServedModel, LookupError> {
    let found = match version {
        Some(version) => versions.get_key_value(&version),
        // The newest that answers, and if none does the newest of all.
        None => versions.iter().rev().find(|(_, it)| it.served.is_some()).or_else(|| versions.last_key_value()),
    };
    let Some((&version, found)) = found else {
        let known = listed(versions.iter().filter(|(_, it)| it.served.is_some()).map(|(version, _)| version));
        return Err(LookupError::UnknownVersion { name: name.to_owned(), version: version.unwrap_or_default(), known });
    };
    let reason = || found.problem.as_deref().unwrap_or("it is being loaded").to_owned();
    found.served.as_ref().ok_or_else(|| LookupError::NotLoaded { name: name.to_owned(), version, reason: reason() })
}

fn listed<T: ToString>(names: impl Iterator<Item = T>) -> String {
    names.map(|name| name.to_string()).collect::<Vec<_>>().join(", ")
}
