//! Changes what is served while it is served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use densecl_models::repository::{self, ModelVersion};

use super::failure::{ChangeError, OpenError, chain};
use super::{Registry, Rehearsal, ServedModel, Version, Versions, newest};
use crate::batch::Batcher;

const UNLOADED: &str = "it was unloaded on request";

/// The models that are served, and the one place that changes them.
///
/// Changes are made one after the other and may take seconds; requests never wait for them.
pub struct ModelLoader {
    root: PathBuf,
    batcher: Batcher,
    rehearsals: Vec<Rehearsal>,
    current: ArcSwap<Registry>,
    /// Models that stay unloaded until somebody loads them. Held for as long as a change takes.
    unloaded: Mutex<BTreeSet<String>>,
}

/// What a look at the repository changed: models as `name/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New, or of another content than before.
    pub loaded: Vec<String>,
    /// Not served any more.
    pub unloaded: Vec<String>,
    /// Those that cannot be loaded, each with the reason.
    pub failed: Vec<(String, String)>,
}

impl ModelLoader {
    /// Loads all models below `root`; see [`Registry::open`].
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: PathBuf, batcher: Batcher, rehearsals: Vec<Rehearsal>) -> Result<Self, OpenError> {
        let registry = Registry::open(&root, batcher.clone(), &rehearsals)?;
        Ok(Self { root, batcher, rehearsals, current: ArcSwap::from_pointee(registry), unloaded: Mutex::default() })
    }

    /// What is served now.
    pub fn current(&self) -> Arc<Registry> {
        self.current.load_full()
    }

    /// Looks at the whole repository: what is new or changed is loaded, what is gone is unloaded.
    /// This blocks.
    ///
    /// # Errors
    /// If the repository cannot be read, or holds no model at all, which rather is a folder that is
    /// not mounted: everything stays as it was.
    pub fn rescan(&self) -> Result<Changes, ChangeError> {
        let unloaded = self.one_at_a_time();
        let mut found: BTreeMap<String, Vec<ModelVersion>> = BTreeMap::new();
        for version in self.scan()? {
            found.entry(version.name.clone()).or_default().push(version);
        }
        let mut changes = Changes::default();
        for (name, versions) in &found {
            if !unloaded.contains(name) {
                self.refresh(name, versions, &mut changes);
            }
        }
        let gone: Vec<String> =
            self.current().models.keys().filter(|&name| !found.contains_key(name)).cloned().collect();
        for name in gone {
            self.remove(&name, &mut changes);
        }
        Ok(changes)
    }

    /// Loads a model: all its versions that are new or changed. This blocks.
    ///
    /// # Errors
    /// If there is none, or a version of it cannot be loaded: what was served before still is.
    pub fn load(&self, name: &str) -> Result<(), ChangeError> {
        let mut unloaded = self.one_at_a_time();
        let found: Vec<ModelVersion> = self.scan()?.into_iter().filter(|version| version.name == name).collect();
        if found.is_empty() {
            return Err(ChangeError::Unknown { name: name.to_owned() });
        }
        unloaded.remove(name);
        let mut changes = Changes::default();
        self.refresh(name, &found, &mut changes);
        if changes.failed.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> =
            changes.failed.iter().map(|(version, reason)| format!("{version}: {reason}")).collect();
        Err(ChangeError::Failed { name: name.to_owned(), reason: reasons.join("; ") })
    }

    /// Unloads all versions of a model, until somebody loads it again.
    ///
    /// # Errors
    /// If there is none.
    pub fn unload(&self, name: &str) -> Result<(), ChangeError> {
        let mut unloaded = self.one_at_a_time();
        let current = self.current();
        let versions = current.models.get(name).ok_or_else(|| ChangeError::Unknown { name: name.to_owned() })?;
        unloaded.insert(name.to_owned());
        let gone = versions.keys().map(|&version| (version, Version::unavailable(UNLOADED))).collect();
        self.publish(name, gone);
        tracing::info!(model = name, "model unloaded");
        Ok(())
    }

    /// Brings one model up to what was found of it.
    fn refresh(&self, name: &str, found: &[ModelVersion], changes: &mut Changes) {
        let before = self.current().models.get(name).cloned().unwrap_or_default();
        self.announce(name, found, &before);
        let mut after = Versions::new();
        // The newest first: it has to be warm, and older ones only if they replace one that may be.
        for version in found.iter().rev() {
            let old = before.get(&version.version).and_then(|it| it.served.as_ref());
            let is_newest = newest(&after).is_none();
            let next = self.next(version, old, is_newest);
            note(version, old, &next, changes);
            after.insert(version.version, next);
        }
        for (&version, it) in before.iter().filter(|(version, _)| !after.contains_key(version)) {
            if it.served.is_some() {
                tracing::info!(model = name, version, "version unloaded");
                changes.unloaded.push(format!("{name}/{version}"));
            }
        }
        self.publish(name, after);
    }

    /// What a version becomes: as its file is now, or as it was if that cannot be served.
    fn next(&self, found: &ModelVersion, old: Option<&ServedModel>, is_newest: bool) -> Version {
        let load = || {
            let new = ServedModel::open(found, &self.batcher)?;
            let same = old.filter(|old| old.is_same_as(&new)).cloned();
            let is_new = same.is_none();
            let model = same.unwrap_or(new);
            if is_newest || (is_new && old.is_some()) {
                model.warm_up(&self.rehearsals)?;
            }
            Ok(model)
        };
        load().map_or_else(
            |error: OpenError| {
                tracing::warn!(
                    model = found.name,
                    version = found.version,
                    error = chain(&error),
                    still_served = old.is_some(),
                    "model not loaded"
                );
                Version { served: old.cloned(), problem: Some(error.reason().into()) }
            },
            Version::ready,
        )
    }

    /// Shows versions that nobody has seen before as loading.
    fn announce(&self, name: &str, found: &[ModelVersion], before: &Versions) {
        let mut versions = before.clone();
        for version in found {
            let it = versions.entry(version.version).or_insert_with(Version::loading);
            if it.served.is_none() {
                it.problem = None;
            }
        }
        self.publish(name, versions);
    }

    fn remove(&self, name: &str, changes: &mut Changes) {
        let mut registry = Registry::clone(&self.current());
        if let Some(versions) = registry.models.remove(name) {
            let served = versions.into_iter().filter(|(_, it)| it.served.is_some());
            changes.unloaded.extend(served.map(|(version, _)| format!("{name}/{version}")));
        }
        self.current.store(Arc::new(registry));
        tracing::info!(model = name, "model is gone, and unloaded");
    }

    fn publish(&self, name: &str, versions: Versions) {
        let mut registry = Registry::clone(&self.current());
        registry.models.insert(name.to_owned(), versions);
        self.current.store(Arc::new(registry));
    }

    fn scan(&self) -> Result<Vec<ModelVersion>, ChangeError> {
        repository::scan(&self.root).map_err(|error| {
            tracing::warn!(error = chain(&error), "the models stay as they are");
            ChangeError::Repository { reason: OpenError::from(error).reason() }
        })
    }

    fn one_at_a_time(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A panic in the middle of a change leaves what was published last, which is whole.
        self.unloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn note(found: &ModelVersion, old: Option<&ServedModel>, next: &Version, changes: &mut Changes) {
    let which = format!("{}/{}", found.name, found.version);
    match next {
        Version { problem: Some(problem), .. } => changes.failed.push((which, problem.to_string())),
        Version { served: Some(new), .. } if !old.is_some_and(|old| old.is_same_as(new)) => {
            tracing::info!(model = found.name, version = found.version, "model loaded");
            changes.loaded.push(which);
        }
        _ => {}
    }
}
