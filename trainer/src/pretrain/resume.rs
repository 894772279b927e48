//! Start of a run: in a new folder, or from the newest undamaged checkpoint of an existing one.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{Run, Trainer};
use crate::checkpoint;
use crate::config::Config;

/// Keys that determine the shapes of a checkpoint's tensors.
const MODEL_KEYS: [&str; 5] =
    ["method", "network.architecture", "network.stem_width", "network.dim", "contrast.queue_length"];

/// Makes the run's folder, or reads where it stopped; returns the first step to take. Every process
/// reads, the first one writes.
pub(super) fn prepare(run: &Run, trainer: &mut Trainer<'_>) -> Result<u64> {
    if run.resume {
        return go_on(run, trainer);
    }
    ensure!(
        checkpoint::list(&run.out)?.is_empty(),
        "{} already holds a run: go on with --resume, or choose another --out",
        run.out.display()
    );
    if !run.world.is_first() {
        return Ok(0);
    }
    fs::create_dir_all(&run.out).with_context(|| format!("cannot make {}", run.out.display()))?;
    write_config(&run.out, &run.config)?;
    Ok(0)
}

fn go_on(run: &Run, trainer: &mut Trainer<'_>) -> Result<u64> {
    if run.world.is_first() {
        checkpoint::remove_unfinished(&run.out)?;
    }
    let Some(newest) = checkpoint::newest_whole(&run.out)? else {
        bail!("nothing to resume: {} holds no checkpoint", run.out.display())
    };
    let changes = newest.record.config.differences(&run.config)?;
    let changed: Vec<_> = changes.iter().map(|(key, old, new)| format!("{key}: {old} → {new}")).collect();
    if changes.iter().any(|(key, ..)| MODEL_KEYS.contains(&key.as_str())) {
        bail!("cannot resume {} with another model: {}", run.out.display(), changed.join(", "));
    }
    if !changed.is_empty() && run.world.is_first() {
        tracing::warn!(changed = changed.join(", "), "the run goes on with another configuration");
        write_config(&run.out, &run.config)?;
    }
    newest.restore(&mut trainer.model, &trainer.optimizer)?;
    tracing::info!(step = newest.record.step, "resumed");
    Ok(newest.record.step)
}

fn write_config(out: &Path, config: &Config) -> Result<()> {
    let path = out.join("config.toml");
    fs::write(&path, toml::to_string(config)?).with_context(|| format!("cannot write {}", path.display()))
}
