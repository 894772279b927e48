//! Metrics of a run at a step.

use serde::{Deserialize, Serialize};

use crate::data::SkipCounts;

/// One line of a run's `metrics.jsonl`.
///
/// Fields that older runs lack are zero or absent when such a line is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Optimiser steps taken.
    pub step: u64,
    /// Passes over the data, `step / steps_per_epoch`.
    pub epoch: f64,
    /// The minimised loss, (1 − λ)·global + λ·dense, in nats.
    pub loss: f64,
    /// InfoNCE of the global projections, in nats.
    pub loss_global: f64,
    /// InfoNCE of the cells, in nats; absent for MoCo-v2.
    #[serde(default)]
    pub loss_dense: Option<f64>,
    /// Share of global queries whose key is nearer than all negatives, in percent.
    pub global_top1: f64,
    /// Share of cells whose key is nearer than all negatives, in percent; absent for MoCo-v2.
    #[serde(default)]
    pub dense_top1: Option<f64>,
    /// Share of cells matched with the cell at the same place of the other view, in percent;
    /// absent for MoCo-v2.
    #[serde(default)]
    pub same_cell: Option<f64>,
    /// Mean cosine similarity of the dense projections of the same cell of different images: near
    /// 1, the dense head has learnt places and not what is seen there. Absent for MoCo-v2.
    #[serde(default)]
    pub place_similarity: Option<f64>,
    /// Standard deviation over the batch of the unit-length global projections, mean over
    /// channels: 1/√D when they spread evenly, 0 when they have collapsed.
    pub embedding_std: f64,
    /// Standard deviation of the backbone's unit-length features.
    #[serde(default)]
    pub feature_std: f64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Weight λ of the dense loss in the step.
    #[serde(default)]
    pub loss_lambda: f64,
    /// Pairs of views trained on in a second, since the line before.
    pub pairs_per_second: f64,
    /// Share of the time since the line before that was spent waiting for images, in percent.
    pub data_wait: f64,
    /// Images that could not be read and were replaced by others since the process started, each counted once by every
    /// process that met it.
    pub skipped_images: u64,
    /// These numbers by reason.
    #[serde(flatten)]
    pub skipped_by_reason: SkipCounts,
    /// Seconds of wall time that the run has taken, over all of its parts.
    #[serde(default)]
    pub seconds: f64,
    /// Most memory that was in use at once, in bytes, where it is known.
    #[serde(default)]
    pub peak_memory_bytes: Option<u64>,
}

impl Metrics {
    /// The curves that TensorBoard shows, by tag.
    pub(super) fn scalars(&self) -> Vec<(&'static str, f64)> {
        let mut scalars = vec![
            ("loss/total", self.loss),
            ("loss/global", self.loss_global),
            ("top1/global", self.global_top1),
            ("std/embedding", self.embedding_std),
            ("std/feature", self.feature_std),
            ("schedule/learning_rate", self.learning_rate),
            ("schedule/loss_lambda", self.loss_lambda),
            ("schedule/epoch", self.epoch),
            ("speed/pairs_per_second", self.pairs_per_second),
            ("speed/data_wait_percent", self.data_wait),
            ("data/skipped_images", self.skipped_images as f64),
        ];
        scalars.extend(self.loss_dense.map(|value| ("loss/dense", value)));
        scalars.extend(self.dense_top1.map(|value| ("top1/dense", value)));
        scalars.extend(self.same_cell.map(|value| ("match/same_cell", value)));
        scalars.extend(self.place_similarity.map(|value| ("match/place_similarity", value)));
        scalars.extend(self.peak_memory_bytes.map(|value| ("memory/peak_bytes", value as f64)));
        scalars
    }
}

#[cfg(test)]
impl Metrics {
    /// Made-up numbers for step `step`.
    pub(crate) fn sample(step: u64) -> Self {
        Self {
            step,
            epoch: step as f64 / 8.0,
            loss: 4.0,
            loss_global: 3.5,
            loss_dense: Some(4.5),
            global_top1: 12.5,
            dense_top1: Some(25.0),
            same_cell: Some(37.5),
            place_similarity: Some(0.25),
            embedding_std: 0.125,
            feature_std: 0.0625,
            learning_rate: 0.03,
            loss_lambda: 0.5,
            pairs_per_second: 100.0,
            data_wait: 3.0,
            skipped_images: 0,
            skipped_by_reason: SkipCounts::default(),
            seconds: step as f64 * 2.0,
            peak_memory_bytes: Some(1 << 30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_an_older_one_too() {
        let line = serde_json::to_string(&Metrics::sample(3)).unwrap();
        assert_eq!(serde_json::from_str::<Metrics>(&line).unwrap(), Metrics::sample(3));
        let older = r#"{"step":4,"epoch":0.5,"loss":2.7,"loss_global":2.1,"loss_dense":null,"global_top1":0.0,
            "dense_top1":null,"embedding_std":0.08,"learning_rate":0.03,"pairs_per_second":48.0,"data_wait":0.9,
            "skipped_images":0}"#;
        let read: Metrics = serde_json::from_str(older).unwrap();
        assert_eq!((read.step, read.loss_dense, read.peak_memory_bytes), (4, None, None));
    }

    #[test]
    fn a_run_without_cells_has_no_dense_curves() {
        let metrics = Metrics { loss_dense: None, dense_top1: None, ..Metrics::sample(1) };
        assert!(metrics.scalars().iter().all(|(tag, _)| !tag.contains("dense")));
        assert!(Metrics::sample(1).scalars().contains(&("loss/dense", 4.5)));
    }
}
