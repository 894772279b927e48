//! States of models, loading and unloading, with model files and without ONNX Runtime.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use densecl_models::geometry::ImageSize;
use densecl_models::{GLOBAL, Manifest};
use prometheus_client::registry::Registry as MetricsRegistry;

use super::*;
use crate::backend::{BackendError, ImageBatch, LayerOutput, LayerSet};
use crate::batch::{Batching, QueueLimits};
use crate::fake::{FakeBackend, FakeEvent, FakeLog};
use crate::metrics::InferenceMetrics;
use crate::onnx_runtime::probe;

type FileBackend = FakeBackend<ModelFile>;

/// A repository, and a loader whose engine answers with the shapes of the manifest.
struct Fixture {
    folder: tempfile::TempDir,
    log: FakeLog,
    batcher: Batcher<FileBackend>,
    /// While it is set, models of a manifest with the method `broken` fail.
    breaks: Arc<AtomicBool>,
}

impl Fixture {
    fn new() -> Self {
        let log = FakeLog::default();
        let breaks = Arc::new(AtomicBool::new(true));
        let fails = Arc::clone(&breaks);
        let backends = FakeBackend::with_compute(1, Duration::ZERO, &log, move |model: &ModelFile, layers, batch| {
            if model.manifest().method == "broken" && fails.load(Ordering::Relaxed) {
                return Err(BackendError::Run("the model is broken".into()));
            }
            Ok(batch.images.iter().map(|_| outputs(model.manifest(), layers, batch)).collect())
        });
        let limits = QueueLimits { max_requests: 8, max_pixels: 1 << 24, max_image_pixels: 1 << 20 };
        let metrics = InferenceMetrics::register(&mut MetricsRegistry::default());
        let batcher = Batcher::start_threads(backends, Batching::NONE, limits, &metrics).expect("threads");
        Self { folder: tempfile::tempdir().expect("a folder"), log, batcher, breaks }
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a model in its place by a rename. Its content differs by `method`.
    fn write(&self, name: &str, version: u32, method: &str) {
        let folder = self.root().join(name).join(version.to_string());
        fs::create_dir_all(&folder).expect("a folder");
        let new = folder.join("new");
        fs::write(&new, probe::model_with_method(method).expect("a model")).expect("a file");
        fs::rename(new, folder.join(repository::MODEL_FILE)).expect("a rename");
    }

    fn remove(&self, name: &str, version: u32) {
        fs::remove_dir_all(self.root().join(name).join(version.to_string())).expect("a folder");
    }

    fn open(&self, warm_up: &[&str]) -> Result<ModelLoader<FileBackend>, OpenError> {
        let warm_up = warm_up.iter().map(|text| text.parse().expect("layers")).collect();
        ModelLoader::open(self.root().to_path_buf(), self.batcher.clone(), warm_up)
    }

    /// How often sessions were built since the last call.
    fn built(&self) -> usize {
        self.log.take().iter().filter(|event| matches!(event, FakeEvent::Built { .. })).count()
    }
}

/// Zeros in the shapes that the manifest promises.
fn outputs(manifest: &Manifest, layers: &LayerSet, batch: ImageBatch<'_>) -> Vec<LayerOutput> {
    let input = ImageSize { width: batch.width as u32, height: batch.height as u32 };
    let output = |name: &String| {
        if name == GLOBAL {
            return LayerOutput { channels: 1, height: 1, width: 1, data: vec![0.0] };
        }
        let layer = manifest.layer(name).expect("a layer of the manifest");
        let grid = layer.grid(input);
        let channels = layer.channels as usize;
        LayerOutput { channels, height: grid.height, width: grid.width, data: vec![0.0; channels * grid.cells()] }
    };
    layers.names().iter().map(output).collect()
}

/// All versions as `name/version state`, with the reason if there is one.
fn states(loader: &ModelLoader<FileBackend>) -> Vec<String> {
    let state = |VersionStatus { name, version, state, reason, .. }: VersionStatus<'_, FileBackend>| {
        let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("{name}/{version} {state:?}{reason}")
    };
    loader.current().versions().map(state).collect()
}

fn method(loader: &ModelLoader<FileBackend>, version: Option<u32>) -> Result<String, LookupError> {
    loader.current().find(Some("m"), version).map(|model| model.manifest().method.clone())
}

#[test]
fn the_newest_version_is_warm_and_the_default() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    fixture.write("m", 3, "new");
    let loader = fixture.open(&[]).expect("models");
    assert_eq!(states(&loader), ["m/1 Ready", "m/3 Ready"]);
    assert_eq!(method(&loader, None), Ok("new".to_owned()));
    assert_eq!(method(&loader, Some(1)), Ok("old".to_owned()));
    assert!(matches!(method(&loader, Some(2)), Err(LookupError::UnknownVersion { known, .. }) if known == "1, 3"));
    assert_eq!(fixture.built(), 2, "the trial of a foreign model and the warm-up, of one version");
}

/// Runs the default layer of the smallest image; returns rows and columns of the map.
fn run(model: &ServedModel<FileBackend>) -> (usize, usize) {
    let input = ModelInput { height: 32, width: 64, rgb: vec![0; 32 * 64 * 3] };
    let layers = model.layers(None).expect("the default layer");
    let deadline = std::time::Instant::now() + Duration::from_mins(1);
    let reply = model.run_blocking(input, layers, deadline).expect("an answer");
    (reply.layers[0].height, reply.layers[0].width)
}

#[test]
fn sessions_are_dropped_after_the_last_request_of_an_unloaded_model() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    fixture.write("other", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    let registry = loader.current();
    let other = registry.find(Some("other"), None).expect("a model").clone();
    let model = registry.find(Some("m"), None).expect("a model").clone();
    drop(registry);
    let forgets = || {
        // An engine obeys its commands before it runs.
        run(&other);
        fixture.log.take().iter().filter(|event| matches!(event, FakeEvent::Forgot { .. })).count()
    };
    loader.unload("m").expect("it is there");
    assert_eq!(run(&model), (32, 64), "a request keeps the model that it found");
    assert_eq!(forgets(), 0);
    drop(model);
    assert_eq!(forgets(), 1);
}

#[test]
fn a_model_that_does_not_run_stops_the_start() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "broken");
    let error = fixture.open(&[]).err().expect("an error");
    assert!(matches!(error, OpenError::WarmUp { .. }), "{error:?}");
    assert_eq!(error.reason(), "it does not run: the model is broken");
}

#[test]
fn warm_up_layers_that_no_model_has_stop_the_start() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    assert!(fixture.open(&["probe@64"]).is_ok());
    let error = fixture.open(&["res9"]).err().expect("an error");
    assert!(matches!(&error, OpenError::WarmUpLayers { layers } if layers == "res9"), "{error:?}");
}

#[test]
fn a_rescan_loads_what_is_new_and_unloads_what_is_gone() {
    let fixture = Fixture::new();
    fixture.write("a", 1, "old");
    fixture.write("b", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    assert_eq!(loader.rescan().expect("a repository"), Changes::default(), "nothing has changed");
    fixture.write("a", 2, "new");
    fixture.write("c", 1, "new");
    fixture.remove("b", 1);
    let changes = loader.rescan().expect("a repository");
    assert_eq!(changes.loaded, ["a/2", "c/1"]);
    assert_eq!(changes.unloaded, ["b/1"]);
    assert!(changes.failed.is_empty());
    assert_eq!(states(&loader), ["a/1 Ready", "a/2 Ready", "c/1 Ready"]);
}

#[test]
fn a_file_of_equal_content_is_not_loaded_again() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    fixture.built();
    fixture.write("m", 1, "old");
    assert_eq!(loader.rescan().expect("a repository"), Changes::default());
    assert_eq!(fixture.built(), 0);
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_and_says_why() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    fixture.write("m", 1, "broken");
    let changes = loader.rescan().expect("a repository");
    assert_eq!(changes.failed, [("m/1".to_owned(), "it does not run: the model is broken".to_owned())]);
    assert_eq!(states(&loader), ["m/1 Ready: it does not run: the model is broken"]);
    assert_eq!(method(&loader, None), Ok("old".to_owned()));
    // A later attempt succeeds.
    fixture.breaks.store(false, Ordering::Relaxed);
    assert_eq!(loader.rescan().expect("a repository").loaded, ["m/1"]);
    assert_eq!(states(&loader), ["m/1 Ready"]);
    assert_eq!(method(&loader, None), Ok("broken".to_owned()));
}

#[test]
fn a_new_version_that_fails_is_unavailable_and_older_ones_answer() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    fixture.write("m", 2, "broken");
    let error = loader.load("m").expect_err("version 2 fails");
    assert!(matches!(&error, ChangeError::Failed { reason, .. } if reason.starts_with("m/2: ")), "{error:?}");
    assert_eq!(states(&loader), ["m/1 Ready", "m/2 Unavailable: it does not run: the model is broken"]);
    assert_eq!(method(&loader, None), Ok("old".to_owned()));
    assert!(matches!(method(&loader, Some(2)), Err(LookupError::NotLoaded { version: 2, .. })));
}

#[test]
fn an_unloaded_model_stays_so_until_it_is_loaded() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    loader.unload("m").expect("it is there");
    assert_eq!(states(&loader), ["m/1 Unavailable: it was unloaded on request"]);
    assert!(matches!(loader.current().find(None, None).map(drop), Err(LookupError::NoModel)));
    loader.rescan().expect("a repository");
    assert_eq!(states(&loader), ["m/1 Unavailable: it was unloaded on request"]);
    loader.load("m").expect("it is there");
    assert_eq!(states(&loader), ["m/1 Ready"]);
    assert_eq!(loader.load("x"), Err(ChangeError::Unknown { name: "x".to_owned() }));
    assert_eq!(loader.unload("x"), Err(ChangeError::Unknown { name: "x".to_owned() }));
}

#[test]
fn requests_keep_the_version_that_they_found() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    let found = loader.current().find(None, None).expect("a model").clone();
    fixture.write("m", 1, "new");
    loader.rescan().expect("a repository");
    assert_eq!(found.manifest().method, "old");
    assert_eq!(method(&loader, None), Ok("new".to_owned()));
}

#[test]
fn an_empty_repository_changes_nothing() {
    let fixture = Fixture::new();
    fixture.write("m", 1, "old");
    let loader = fixture.open(&[]).expect("models");
    fixture.remove("m", 1);
    let error = loader.rescan().expect_err("it may not be mounted");
    assert_eq!(error, ChangeError::Repository { reason: "the model repository holds no model".to_owned() });
    assert_eq!(states(&loader), ["m/1 Ready"]);
}
