//! Loads and unloads models while others are served.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use densecl_models::repository::{self, ModelVersion};

use super::error::{ChangeError, OpenError, chain};
use super::{Registry, ServedModel, Version, Versions, WarmUpLayers, newest};
use crate::backend::Backend;
use crate::batch::Batcher;
use crate::model_file::ModelFile;
use crate::onnx_runtime::OnnxRuntimeBackend;

const UNLOADED: &str = "it was unloaded on request";

/// The models that are served, and the only code that changes them.
///
/// Changes are made one after the other and may take seconds; requests never wait for them.
pub struct ModelLoader<B: Backend = OnnxRuntimeBackend> {
    root: PathBuf,
    batcher: Batcher<B>,
    warm_up_layers: Vec<WarmUpLayers>,
    current: ArcSwap<Registry<B>>,
    /// Models that stay unloaded until a client loads them. Locked for as long as a change takes.
    unloaded: Mutex<BTreeSet<String>>,
}

/// The changes of a rescan: models as `name/version`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Versions that are new, or have another content than before.
    pub loaded: Vec<String>,
    /// Versions that are not served any more.
    pub unloaded: Vec<String>,
    /// Versions that cannot be loaded, each with the reason.
    pub failed: Vec<(String, String)>,
}

impl<B: Backend<Model = ModelFile>> ModelLoader<B> {
    /// Loads all models below `root`; see [`Registry::open`].
    ///
    /// # Errors
    /// If the folder holds no models, or one that cannot be read or run; the error names the file.
    pub fn open(root: PathBuf, batcher: Batcher<B>, warm_up_layers: Vec<WarmUpLayers>) -> Result<Self, OpenError> {
        let registry = Registry::open(&root, batcher.clone(), &warm_up_layers)?;
        Ok(Self { root, batcher, warm_up_layers, current: ArcSwap::from_pointee(registry), unloaded: Mutex::default() })
    }

    /// The models that are served now.
    pub fn current(&self) -> Arc<Registry<B>> {
        self.current.load_full()
    }

    /// Reads the whole repository: loads what is new or changed, unloads what is gone. This blocks.
    ///
    /// # Errors
    /// If the repository cannot be read, or holds no model at all, which probably is a folder that is not mounted:
    /// everything stays as it was.
    pub fn rescan(&self) -> Result<Changes, ChangeError> {
        let unloaded = self.begin_change();
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

    /// Loads all versions of a model that are new or changed. This blocks.
    ///
    /// # Errors
    /// If there is none, or a version of it cannot be loaded: the versions that were served before still are.
    pub fn load(&self, name: &str) -> Result<(), ChangeError> {
        let mut unloaded = self.begin_change();
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

    /// Unloads all versions of a model, until [`load`](Self::load) loads it again.
    ///
    /// # Errors
    /// If there is none.
    pub fn unload(&self, name: &str) -> Result<(), ChangeError> {
        let mut unloaded = self.begin_change();
        let current = self.current();
        let versions = current.models.get(name).ok_or_else(|| ChangeError::Unknown { name: name.to_owned() })?;
        unloaded.insert(name.to_owned());
        let gone = versions.keys().map(|&version| (version, Version::unavailable(UNLOADED))).collect();
        self.publish(name, gone);
        tracing::info!(model = name, "model unloaded");
        Ok(())
    }

    /// Replaces the versions of one model by those that were found.
    fn refresh(&self, name: &str, found: &[ModelVersion], changes: &mut Changes) {
        let before = self.current().models.get(name).cloned().unwrap_or_default();
        self.announce(name, found, &before);
        let mut after = Versions::new();
        // The newest first: it has to be warm. Older ones have to be only if they replace a version that may be warm.
        for version in found.iter().rev() {
            let old = before.get(&version.version).and_then(|it| it.served.as_ref());
            let is_newest = newest(&after).is_none();
            let next = self.next_version(version, old, is_newest);
            record_change(version, old, &next, changes);
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

    /// The version as its file is now, or as it was served before if the file cannot be served.
    fn next_version(&self, found: &ModelVersion, old: Option<&ServedModel<B>>, is_newest: bool) -> Version<B> {
        let load = || {
            let new = ServedModel::open(found, &self.batcher)?;
            let same = old.filter(|old| old.has_digest_of(&new)).cloned();
            let is_new = same.is_none();
            let model = same.unwrap_or(new);
            if is_newest || (is_new && old.is_some()) {
                model.warm_up(&self.warm_up_layers)?;
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

    /// Publishes new versions as loading.
    fn announce(&self, name: &str, found: &[ModelVersion], before: &Versions<B>) {
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

    fn publish(&self, name: &str, versions: Versions<B>) {
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

    fn begin_change(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A panic in the middle of a change leaves what was published last, which is whole.
        self.unloaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn record_change<B: Backend<Model = ModelFile>>(
    found: &ModelVersion,
    old: Option<&ServedModel<B>>,
    next: &Version<B>,
    changes: &mut Changes,
) {
    let which = format!("{}/{}", found.name, found.version);
    match next {
        Version { problem: Some(problem), .. } => changes.failed.push((which, problem.to_string())),
        Version { served: Some(new), .. } if !old.is_some_and(|old| old.has_digest_of(new)) => {
            tracing::info!(model = found.name, version = found.version, "model loaded");
            changes.loaded.push(which);
        }
        _ => {}
    }
}
