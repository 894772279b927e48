//! Checks and exchanges between the processes of a run, besides those of the method.

use anyhow::{Result, bail, ensure};
use sha2::{Digest, Sha256};
use tch::Tensor;

use super::{Run, Trainer};
use crate::checkpoint;
use crate::data::{Batch, Loader, SkipCounts};
use crate::distributed::World;

/// State that the processes exchange after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AfterStep {
    /// `true` if one of them got a request to stop.
    pub(super) stop: bool,
    /// Numbers of images that all have skipped so far.
    pub(super) skipped: SkipCounts,
}

/// Checks that all processes start from the same model, configuration and data.
///
/// # Errors
/// Names a process that differs from the first.
pub(super) fn same_start(run: &Run, trainer: &Trainer<'_>, first: u64) -> Result<()> {
    if run.world.size() == 1 {
        return Ok(());
    }
    let plan =
        format!("{first} {} {}\n{}", trainer.steps_per_epoch, trainer.total_steps, toml::to_string(&run.config)?);
    let hash = Sha256::digest(plan);
    let plan = hash.iter().take(8).fold(0, |number, &byte| number << 8 | i64::from(byte));
    let state = checkpoint::digest(&trainer.model, &trainer.optimizer)?;
    let all = run.world.gather(&Tensor::from_slice(&[plan, state]).view([1, 2]))?; // [ranks, 2]
    for rank in 1..run.world.size() as i64 {
        let same = |what: i64| all.int64_value(&[rank, what]) == all.int64_value(&[0, what]);
        ensure!(
            same(0),
            "rank {rank} is about to train something else than rank 0: every rank needs the same configuration, the \
             same number of images and, to go on, the same checkpoints"
        );
        ensure!(
            same(1),
            "rank {rank} begins with other weights than rank 0: every rank has to read the same checkpoint, and new \
             weights are only the same on processors of the same kind"
        );
    }
    Ok(())
}

/// Returns the process's share of a batch, if every process could read its own.
///
/// # Errors
/// If the data of this process, or of another one, have failed.
pub(super) fn whole_batch(world: &World, batch: Result<Batch>) -> Result<Batch> {
    let failed = world.which(batch.is_err())?;
    let batch = batch?;
    match failed.first() {
        Some(rank) => bail!("the data of rank {rank} have failed, see its own error"),
        None => Ok(batch),
    }
}

/// Exchanges the state after a step.
///
/// # Errors
/// If a process is lost.
pub(super) fn after_step(run: &Run, loader: &Loader) -> Result<AfterStep> {
    let [a, b, c, d, e, f] = loader.skipped().numbers().map(|number| number as i64);
    let [stop, skipped @ ..] = run.world.sums([i64::from(run.stop.requested()), a, b, c, d, e, f])?;
    Ok(AfterStep { stop: stop > 0, skipped: SkipCounts::from_numbers(skipped.map(|number| number as u64)) })
}
