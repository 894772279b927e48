//! Validation of a configuration.

use anyhow::{Result, ensure};

use super::Config;

/// Above this share of the images in the queue, many a negative shows the query's own image.
const LARGE_QUEUE: f64 = 0.6;

impl Config {
    /// Every value in its range, and those that depend on each other in agreement.
    pub(super) fn check(&self) -> Result<()> {
        self.encoder_spec()?;
        self.augment.check()?;
        let Self { network, data, contrast, optimizer, schedule, .. } = self;
        ensure!((1..=1024).contains(&network.stem_width), "network.stem_width: expected 1 to 1024");
        ensure!((1..=65_536).contains(&network.dim), "network.dim: expected 1 to 65536");
        ensure!((32..=4096).contains(&data.view_px), "data.view_px: expected 32 to 4096");
        ensure!((16..=8192).contains(&data.canvas_px), "data.canvas_px: expected 16 to 8192");
        ensure!(data.workers > 0 && data.prefetch > 0, "data.workers and data.prefetch: at least 1");
        self.check_batch()?;
        ensure!(contrast.loss_chunk >= 1, "contrast.loss_chunk: at least 1");
        ensure!(contrast.temperature > 0.0, "contrast.temperature: above 0");
        ensure!((0.0..=1.0).contains(&contrast.momentum), "contrast.momentum: within [0, 1]");
        ensure!((0.0..=1.0).contains(&contrast.loss_lambda), "contrast.loss_lambda: within [0, 1]");
        ensure!(
            optimizer.learning_rate >= 0.0 && optimizer.learning_rate.is_finite(),
            "optimizer.learning_rate: not negative"
        );
        ensure!((0.0..1.0).contains(&optimizer.momentum), "optimizer.momentum: within [0, 1)");
        ensure!(optimizer.weight_decay >= 0.0, "optimizer.weight_decay: not negative");
        ensure!(data.images_per_epoch >= optimizer.batch as u64, "data.images_per_epoch: at least a batch");
        ensure!(
            schedule.checkpoint_steps > 0 && schedule.keep_checkpoints > 0 && schedule.report_steps > 0,
            "schedule.checkpoint_steps, keep_checkpoints and report_steps: at least 1"
        );
        ensure!(
            (1..=1_000_000).contains(&data.shuffle_buffer) && (1..=1024).contains(&data.shard_readers),
            "data.shuffle_buffer: 1 to 1000000; data.shard_readers: 1 to 1024"
        );
        ensure!(optimizer.trust_coefficient > 0.0, "optimizer.trust_coefficient: above 0");
        Ok(())
    }

    /// Queue, BatchNorm groups and parts against the batch.
    fn check_batch(&self) -> Result<()> {
        let batch = self.optimizer.batch as i64;
        ensure!(batch >= 2, "optimizer.batch: at least 2");
        let queue = self.contrast.queue_length;
        ensure!(
            queue >= batch && queue % batch == 0,
            "contrast.queue_length is {queue}, which is not a multiple of optimizer.batch = {batch}; {} would be",
            (queue / batch).max(1) * batch,
        );
        let splits = self.contrast.bn_splits;
        ensure!(
            splits >= 1 && batch % splits == 0 && batch / splits >= 2,
            "contrast.bn_splits is {splits}; it must divide optimizer.batch = {batch} into groups of at least 2",
        );
        let parts = self.optimizer.accumulation as i64;
        ensure!(
            parts >= 1 && splits % parts == 0,
            "optimizer.accumulation is {parts}; it must divide contrast.bn_splits = {splits}, so that a BatchNorm \
             group is never torn apart: set contrast.bn_splits to a multiple, groups of 32 images are usual",
        );
        Ok(())
    }

    /// Batch and BatchNorm groups against the number of processes that share them.
    ///
    /// # Errors
    /// If they cannot be shared evenly, with what to set instead.
    pub fn check_world(&self, ranks: usize) -> Result<()> {
        let (ranks, batch) = (ranks as i64, self.optimizer.batch as i64);
        let (splits, parts) = (self.contrast.bn_splits, self.optimizer.accumulation as i64);
        ensure!(
            batch % ranks == 0 && batch / ranks >= 2,
            "{ranks} ranks cannot share optimizer.batch = {batch} evenly, at least 2 images each; {} would do",
            (batch / ranks).max(2) * ranks,
        );
        ensure!(
            splits % ranks == 0,
            "{ranks} ranks cannot share contrast.bn_splits = {splits}: every rank takes whole BatchNorm groups. Set \
             contrast.bn_splits to {ranks}, or to a multiple of it that divides optimizer.batch = {batch} into \
             groups of at least 2",
        );
        ensure!(
            splits / ranks % parts == 0,
            "optimizer.accumulation is {parts}; it must divide the {} BatchNorm groups that each of {ranks} ranks \
             takes of contrast.bn_splits = {splits}",
            splits / ranks,
        );
        Ok(())
    }

    /// Batch and queue against a data set of `images`.
    ///
    /// # Errors
    /// If there are fewer images than a batch or a queue holds, with what to set instead.
    pub fn check_images(&self, images: u64) -> Result<()> {
        let batch = self.optimizer.batch as u64;
        ensure!(
            images >= batch,
            "the data hold {images} images, fewer than a batch of {batch}: set optimizer.batch to {images} or less"
        );
        let queue = self.contrast.queue_length as u64;
        let advised = (images / 4 / batch).max(1) * batch;
        ensure!(
            queue <= images,
            "contrast.queue_length is {queue}, but there are only {images} images: a query would meet its own image \
             among the negatives. Set it to a quarter of the images or less, a multiple of the batch: {advised}"
        );
        if queue as f64 > LARGE_QUEUE * images as f64 {
            tracing::warn!(queue_length = queue, images, advised, "the queue remembers most of the images");
        }
        Ok(())
    }
}
