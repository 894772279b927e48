//! Checkpoints: a folder with the tensors (safetensors) and everything else (TOML).
//!
//! `<run>/checkpoints/step-00000100/{state.safetensors, checkpoint.toml}`. A checkpoint is written
//! under a temporary name, synced and renamed, so that one under its own name is complete; its hash
//! is checked when it is read.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use densecl_models::atomic_file::AtomicFolder;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::Tensor;

use crate::config::Config;
use crate::densecl::DenseCl;
use crate::network::Encoder;
use crate::optimizer::Optimizer;
use crate::queue::Queue;
use crate::tensor_file::TensorFile;

/// Below a run's folder.
const FOLDER: &str = "checkpoints";
const STATE: &str = "state.safetensors";
const RECORD: &str = "checkpoint.toml";
/// Prefix of temporary folders, those of [`AtomicFolder`] among them.
const TEMPORARY_PREFIX: &str = ".writing-";

/// Revision of the source that this trainer was built from.
pub const COMMIT: &str = env!("DENSECL_COMMIT");

/// Everything in a checkpoint but its tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Optimiser steps taken.
    pub step: u64,
    /// Revision of the trainer.
    pub commit: String,
    /// SHA-256 of the tensor file, in hexadecimal.
    pub state_sha256: String,
    /// The run's configuration.
    pub config: Config,
}

/// A checkpoint that has been read and verified.
#[derive(Debug)]
pub struct Checkpoint {
    /// Step, revision and configuration.
    pub record: Record,
    state: TensorFile,
}

/// Writes the state of a run after `step` steps below its folder and deletes all but the newest checkpoints. Returns
/// the new checkpoint's folder.
///
/// # Errors
/// If a file cannot be written; earlier checkpoints are then as they were.
pub fn save(run: &Path, config: &Config, step: u64, model: &DenseCl, optimizer: &Optimizer) -> Result<PathBuf> {
    let folder = folder(run, step);
    let parent = run.join(FOLDER);
    let failed = || format!("cannot write the checkpoint {}; earlier checkpoints are as they were", folder.display());
    let written = AtomicFolder::create(&folder).with_context(failed)?;
    let bytes = state_of(model, optimizer).encode().with_context(failed)?;
    let record =
        Record { step, commit: COMMIT.to_owned(), state_sha256: hex(&Sha256::digest(&bytes)), config: config.clone() };
    write_synced(&written.temporary_path().join(STATE), &bytes).with_context(failed)?;
    write_synced(&written.temporary_path().join(RECORD), toml::to_string(&record)?.as_bytes()).with_context(failed)?;
    sync_folder(written.temporary_path()).with_context(failed)?;
    if folder.exists() {
        // The run was resumed from an earlier step: this checkpoint is damaged or has the same state.
        let old = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).tempdir_in(&parent).with_context(failed)?;
        fs::rename(&folder, old.path().join("old")).with_context(failed)?;
    }
    written.commit().with_context(failed)?;
    for old in list(run)?.iter().rev().skip(config.schedule.keep_checkpoints) {
        fs::remove_dir_all(old).with_context(|| format!("cannot delete the old checkpoint {}", old.display()))?;
    }
    Ok(folder)
}

/// Folder of the checkpoint after `step` steps of a run.
pub fn folder(run: &Path, step: u64) -> PathBuf {
    run.join(FOLDER).join(format!("step-{step:08}"))
}

/// A hash of the state of a run.
///
/// # Errors
/// If a tensor has a type that checkpoints lack.
pub fn digest(model: &DenseCl, optimizer: &Optimizer) -> Result<i64> {
    let hash = Sha256::digest(state_of(model, optimizer).encode()?);
    Ok(hash.iter().take(8).fold(0, |number, &byte| number << 8 | i64::from(byte)))
}

/// Reads the newest undamaged checkpoint of a run; damaged ones are skipped with a warning. `None` if
/// the run has no checkpoint.
///
/// # Errors
/// If all are damaged.
pub fn newest_whole(run: &Path) -> Result<Option<Checkpoint>> {
    let mut first_error = None;
    for folder in list(run)?.iter().rev() {
        match Checkpoint::read(folder) {
            Ok(checkpoint) => return Ok(Some(checkpoint)),
            Err(error) => {
                tracing::warn!(error = format_args!("{error:#}"), "a damaged checkpoint is skipped");
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(None), |error| Err(error.context("no checkpoint of the run is whole")))
}

/// Removes the temporary folders of a process that was killed while it wrote a checkpoint.
///
/// # Errors
/// If it cannot be removed.
pub fn remove_unfinished(run: &Path) -> Result<()> {
    for path in entries(run)?.iter().filter(|path| begins(path, TEMPORARY_PREFIX)) {
        fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// Folders of a run's checkpoints, oldest first.
///
/// # Errors
/// If the folder of checkpoints is there but cannot be listed.
pub fn list(run: &Path) -> Result<Vec<PathBuf>> {
    let mut folders = entries(run)?;
    folders.retain(|path| begins(path, "step-"));
    folders.sort_unstable();
    Ok(folders)
}

fn entries(run: &Path) -> Result<Vec<PathBuf>> {
    let parent = run.join(FOLDER);
    let entries = match fs::read_dir(&parent) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", parent.display())),
    };
    Ok(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect())
}

fn begins(path: &Path, prefix: &str) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
}

/// The checkpoint at `path`: its folder, or a run whose newest is taken.
///
/// # Errors
/// If there is none.
pub fn locate(path: &Path) -> Result<PathBuf> {
    if path.join(RECORD).is_file() {
        return Ok(path.to_owned());
    }
    let newest = list(path)?.pop();
    newest.with_context(|| format!("{} is neither a checkpoint nor a run that holds one", path.display()))
}

impl Checkpoint {
    /// Reads a checkpoint's folder and verifies it.
    ///
    /// # Errors
    /// If a file is missing, damaged, or not a checkpoint's.
    pub fn read(folder: &Path) -> Result<Self> {
        let (record, state) = (folder.join(RECORD), folder.join(STATE));
        let text = fs::read_to_string(&record).with_context(|| format!("cannot read {}", record.display()))?;
        let record: Record = toml::from_str(&text).with_context(|| format!("{} is not valid", record.display()))?;
        let bytes = fs::read(&state).with_context(|| format!("cannot read {}", state.display()))?;
        let found = hex(&Sha256::digest(&bytes));
        ensure!(found == record.state_sha256, "{} is damaged: its SHA-256 is not the recorded one", state.display());
        Ok(Self { record, state: TensorFile::decode(&bytes, &state)? })
    }

    /// Overwrites encoders, queues and momenta with the checkpoint's state.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn restore(&self, model: &mut DenseCl, optimizer: &Optimizer) -> Result<()> {
        self.restore_encoder(&model.query, "query")?;
        self.restore_encoder(&model.key, "key")?;
        let queue = |queue: &mut Queue, name: &str| -> Result<()> {
            let pointer = self.state.get(&format!("queue_pointer/{name}"))?.int64_value(&[]);
            Ok(queue.load(self.state.get(&format!("queue/{name}"))?, pointer)?)
        };
        queue(&mut model.global_queue, "global")?;
        if let Some(dense) = &mut model.dense_queue {
            queue(dense, "dense")?;
        }
        for (name, velocity) in named_velocities(model, optimizer) {
            let found = self.state.get(&name)?;
            ensure!(found.size() == velocity.size(), "`{name}` has another shape");
            velocity.shallow_clone().copy_(found);
        }
        Ok(())
    }

    /// Overwrites an encoder with the one called `name`, `query` or `key`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn restore_encoder(&self, encoder: &Encoder, name: &str) -> Result<()> {
        let find = |tensor: &str| self.state.tensors.get(&format!("{name}/{tensor}")).map(Tensor::shallow_clone);
        encoder.tensors().load(find).with_context(|| format!("{name} encoder"))
    }

    /// All tensors by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&String, &Tensor)> {
        self.state.tensors.iter()
    }
}

fn state_of(model: &DenseCl, optimizer: &Optimizer) -> TensorFile {
    let mut file = TensorFile::default();
    let mut put = |name: String, tensor: &Tensor| file.tensors.insert(name, tensor.detach());
    for (prefix, encoder) in [("query", &model.query), ("key", &model.key)] {
        for (name, _, tensor) in encoder.tensors().iter() {
            put(format!("{prefix}/{name}"), tensor);
        }
    }
    for (name, queue) in [("global", Some(&model.global_queue)), ("dense", model.dense_queue.as_ref())] {
        if let Some(queue) = queue {
            put(format!("queue/{name}"), queue.vectors());
            put(format!("queue_pointer/{name}"), &Tensor::from(queue.pointer()));
        }
    }
    for (name, velocity) in named_velocities(model, optimizer) {
        put(name, velocity);
    }
    file
}

fn named_velocities<'a>(model: &DenseCl, optimizer: &'a Optimizer) -> Vec<(String, &'a Tensor)> {
    let parameters = model.query.tensors().iter().filter(|(_, role, _)| *role == crate::network::TensorRole::Parameter);
    parameters
        .zip(optimizer.velocities())
        .map(|((name, _, _), velocity)| (format!("velocity/{name}"), velocity))
        .collect()
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::File::create(path)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()
}

/// Flushes the names in a folder to disk.
fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
