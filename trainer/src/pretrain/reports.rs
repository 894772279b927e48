//! Reports of a run: measures and pictures at regular steps.

use std::time::Instant;

use anyhow::Result;
use tch::Tensor;

use super::{Run, Trainer};
use crate::data::{Batch, Loader, SkipCounts};
use crate::measures::Measures;
use crate::monitor::pictures::FixedImages;
use crate::monitor::{self, Metrics, Monitor};

/// Number of images of which pictures are drawn.
pub(super) const FIXED_IMAGES: usize = 6;

/// Step whose random numbers the views of the fixed images have; no run gets as far.
const FIXED_VIEWS_STEP: u64 = u64::MAX;

/// A step that may be due for a report.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reported {
    /// Steps taken.
    pub(super) step: u64,
    /// `true` for the last step.
    pub(super) last: bool,
    /// Images that the processes have passed over so far.
    pub(super) skipped: SkipCounts,
}

/// Measures and pictures of a run.
#[derive(Debug)]
pub(super) struct Reports {
    monitor: Monitor,
    fixed: FixedImages,
    since: Instant,
    from_step: u64,
}

impl Reports {
    /// Reports of the steps from `first` on; pictures show the images of `samples`.
    pub(super) fn open(run: &Run, trainer: &Trainer<'_>, samples: &Batch, first: u64) -> Result<Self> {
        let monitor = Monitor::open(&run.out, first, trainer.total_steps, run.progress)?;
        let views = trainer.views(FIXED_VIEWS_STEP, samples);
        let fixed = FixedImages { images: trainer.whole(samples), query_views: views.query, key_views: views.key };
        Ok(Self { monitor, fixed, since: Instant::now(), from_step: first })
    }

    /// Writes what is due after a step; everything when it is the last.
    pub(super) fn after_step(
        &mut self,
        reported: &Reported,
        trainer: &Trainer<'_>,
        measures: &Measures,
        loader: &mut Loader,
    ) -> Result<()> {
        let Reported { step: done, last, .. } = *reported;
        let schedule = &trainer.config.schedule;
        let (report_steps, picture_steps) = (schedule.report_steps, schedule.picture_steps);
        if last || done.is_multiple_of(report_steps) {
            self.measures(reported, trainer, measures, loader)?;
        }
        if picture_steps > 0 && (last || done.is_multiple_of(picture_steps)) {
            for (name, picture) in self.fixed.pictures(&trainer.model) {
                self.monitor.picture(name, done, &picture)?;
            }
            // Time spent on pictures is not the training's.
            self.since = Instant::now();
            self.from_step = done;
        }
        Ok(())
    }

    fn measures(
        &mut self,
        reported: &Reported,
        trainer: &Trainer<'_>,
        measures: &Measures,
        loader: &mut Loader,
    ) -> Result<()> {
        let done = reported.step;
        let elapsed = self.since.elapsed().as_secs_f64();
        let steps_per_second = (done - self.from_step) as f64 / elapsed;
        let number = |tensor: &Tensor| tensor.double_value(&[]);
        let dense = measures.dense.as_ref();
        self.monitor.record(&Metrics {
            step: done,
            epoch: done as f64 / trainer.steps_per_epoch as f64,
            loss: number(&measures.loss),
            loss_global: number(&measures.loss_global),
            loss_dense: dense.map(|dense| number(&dense.loss)),
            global_top1: number(&measures.global_top1),
            dense_top1: dense.map(|dense| number(&dense.top1)),
            same_cell: dense.map(|dense| number(&dense.same_cell)),
            place_similarity: dense.map(|dense| number(&dense.place_similarity)),
            embedding_std: number(&measures.embedding_std),
            feature_std: number(&measures.feature_std),
            learning_rate: trainer.learning_rate(done - 1),
            loss_lambda: trainer.config.loss_lambda(done - 1),
            pairs_per_second: steps_per_second * trainer.config.optimizer.batch as f64,
            data_wait: 100.0 * loader.take_waited().as_secs_f64() / elapsed,
            skipped_images: reported.skipped.total(),
            skipped_by_reason: reported.skipped,
            seconds: self.monitor.seconds(),
            peak_memory_bytes: monitor::peak_memory_bytes(),
        })?;
        self.since = Instant::now();
        self.from_step = done;
        Ok(())
    }
}
