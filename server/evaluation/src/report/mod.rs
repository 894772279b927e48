//! The report of an evaluation, with a row for each method, as text, as JSON and as an HTML page.

mod drawing;
mod page;
mod page_error;
mod table;

use serde::Serialize;

use super::dataset::{Dataset, DatasetLayout};
use super::metrics::Estimate;
use super::pair_result::{Curve, Metric, PairResult, Score};
use super::protocol::MethodResult;

pub use self::page::page;
pub use self::page_error::PageError;
pub use self::table::text_table;

/// The report of several methods on one data set. Its serialisation is the document that `--format json` prints, to which
/// fields may be added, but none removed.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Version of this document's schema.
    pub schema_version: u32,
    /// Layout of the data set.
    pub layout: DatasetLayout,
    /// Name of the data set for people, such as `HPatches` or `procedural pairs`.
    pub title: &'static str,
    /// Number of sequences; of pairs for SPair-71k, which has no sequences.
    pub sequences: usize,
    /// Number of pairs of images.
    pub pairs: usize,
    /// Number of threads.
    pub threads: usize,
    /// One row for each method, in the order of the request.
    pub rows: Vec<ReportRow>,
}

/// Kind of a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodKind {
    /// The evaluated model.
    Model,
    /// The model's graph with random weights.
    Random,
    /// Raw patches of pixels.
    Rgb,
    /// SIFT.
    Sift,
}

/// The results of one method.
#[derive(Clone, Debug, Serialize)]
pub struct ReportRow {
    /// Name of the method.
    pub name: String,
    /// Kind of the method.
    pub kind: MethodKind,
    /// Number of runs, each with different random weights.
    pub seeds: usize,
    /// The reason why the method was not evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// Computing times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// The group of all pairs, then groups of some.
    pub groups: Vec<PairGroup>,
    /// Curves over all pairs.
    pub curves: Vec<MeanCurve>,
    /// Results of the first seed, pair by pair.
    #[serde(skip)]
    pub pair_results: Vec<PairResult>,
}

/// Median times in milliseconds, without decoding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// From an image to its features.
    pub describe_ms: f64,
    /// From the features of two images to their matches.
    pub match_ms: f64,
    /// For a pair of images: `2 · describe_ms + match_ms`.
    pub pair_ms: f64,
}

/// Means over a group of pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairGroup {
    /// `all`, or the name of the group.
    pub name: String,
    /// Number of pairs.
    pub pairs: usize,
    /// The means.
    pub metrics: Vec<Measurement>,
}

/// The mean of a metric over a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// The metric.
    #[serde(flatten)]
    pub metric: Metric,
    /// Mean and standard error over the pairs, each pair averaged over the seeds.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Sample standard deviation of the mean over the seeds, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_deviation: Option<f64>,
}

/// The mean of a curve over all pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanCurve {
    /// The curve.
    #[serde(flatten)]
    pub curve: &'static Curve,
    /// One mean share for each threshold.
    pub shares: Vec<f64>,
}

/// The name of the group of all pairs.
const ALL: &str = "all";
/// The name of the mean in which all categories have equal weights.
const MEAN_OF_CATEGORIES: &str = "mean of the categories";

impl Report {
    /// A report on `dataset` without rows.
    pub fn new(dataset: &Dataset, threads: usize) -> Self {
        Self {
            schema_version: 1,
            layout: dataset.layout(),
            title: dataset.title(),
            sequences: dataset.sequences(),
            pairs: dataset.pairs(),
            threads,
            rows: Vec::new(),
        }
    }

    /// A text with the numbers of pairs, sequences and threads.
    fn extent(&self) -> String {
        let counted = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let of = match self.layout {
            DatasetLayout::Spair => String::new(),
            DatasetLayout::HPatches | DatasetLayout::Scenes => format!(" in {}", counted(self.sequences, "sequence")),
        };
        format!("{}{of}, {}", counted(self.pairs, "pair"), counted(self.threads, "thread"))
    }
}

impl ReportRow {
    /// The row of `runs`, one for each seed; `None` if there are no runs.
    pub fn new(name: String, kind: MethodKind, layout: DatasetLayout, runs: Vec<MethodResult>) -> Option<Self> {
        let seeds: Vec<&[PairResult]> = runs.iter().map(|run| run.pair_results.as_slice()).collect();
        let groups = groups(&seeds, layout);
        let curves = mean_curves(&seeds);
        let number = runs.len();
        let first = runs.into_iter().next()?;
        let cost = Cost {
            describe_ms: first.describe_ms,
            match_ms: first.match_ms,
            pair_ms: 2.0 * first.describe_ms + first.match_ms,
        };
        Some(Self {
            name,
            kind,
            seeds: number,
            absent: None,
            cost: Some(cost),
            groups,
            curves,
            pair_results: first.pair_results,
        })
    }

    /// The row of a method that was not evaluated.
    pub fn absent(name: String, kind: MethodKind, reason: String) -> Self {
        Self {
            name,
            kind,
            seeds: 0,
            absent: Some(reason),
            cost: None,
            groups: Vec::new(),
            curves: Vec::new(),
            pair_results: Vec::new(),
        }
    }

    /// The mean of the metric `id` over all pairs.
    pub fn measurement(&self, id: &str) -> Option<&Measurement> {
        self.groups.first()?.metrics.iter().find(|measurement| measurement.metric.id == id)
    }
}

impl DatasetLayout {
    /// The ids of the main metrics. The first one ranks pairs.
    pub fn headline(self) -> &'static [&'static str] {
        match self {
            Self::HPatches => &["mma_5px", "mma_3px", "homography_3px", "pck_side_0.05"],
            Self::Scenes => &["pck_side_0.05", "epe_median", "occlusion_auc", "jf_davis", "jf_served"],
            Self::Spair => &["pck_image_0.1", "pck_point_0.1"],
        }
    }
}

fn groups(seeds: &[&[PairResult]], layout: DatasetLayout) -> Vec<PairGroup> {
    let Some(first) = seeds.first() else { return Vec::new() };
    let mut names: Vec<&str> = first.iter().filter_map(|result| result.group.as_deref()).collect();
    names.sort_unstable();
    names.dedup();
    let all = group(ALL, seeds, &|_| true);
    let parts: Vec<PairGroup> =
        names.iter().map(|name| group(name, seeds, &|result| result.group.as_deref() == Some(name))).collect();
    let mean = (layout == DatasetLayout::Spair).then(|| mean_of_groups(&parts, first.len()));
    std::iter::once(all).chain(mean).chain(parts).collect()
}

fn group(name: &str, seeds: &[&[PairResult]], belongs: &dyn Fn(&PairResult) -> bool) -> PairGroup {
    let members: Vec<Vec<&PairResult>> =
        seeds.iter().map(|results| results.iter().filter(|result| belongs(result)).collect()).collect();
    let pairs = members.first().map_or(0, Vec::len);
    let mut metrics: Vec<&Metric> = Vec::new();
    for score in members.iter().flatten().flat_map(|result| &result.scores) {
        if !metrics.contains(&&score.metric) {
            metrics.push(&score.metric);
        }
    }
    let metrics = metrics.into_iter().filter_map(|metric| measurement(metric, &members)).collect();
    PairGroup { name: name.to_owned(), pairs, metrics }
}

fn measurement(metric: &Metric, seeds: &[Vec<&PairResult>]) -> Option<Measurement> {
    let value_and_weight = |result: &PairResult| -> Option<(f64, f64)> {
        let Score { value, weight, .. } = result.scores.iter().find(|score| score.metric == *metric)?;
        Some((*value, *weight))
    };
    let means: Vec<f64> = seeds
        .iter()
        .filter_map(|results| {
            Estimate::from_weighted(&results.iter().filter_map(|result| value_and_weight(result)).collect::<Vec<_>>())
        })
        .map(|estimate| estimate.mean)
        .collect();
    // Every seed has the same pairs in the same order, but a pair's metric may be missing for some seeds.
    let pairs = seeds.first().map_or(0, Vec::len);
    let averaged = |pair: usize| {
        let scores: Vec<(f64, f64)> = seeds.iter().filter_map(|results| value_and_weight(results.get(pair)?)).collect();
        let mean = |part: fn(&(f64, f64)) -> f64| scores.iter().map(part).sum::<f64>() / scores.len() as f64;
        (!scores.is_empty()).then(|| (mean(|score| score.0), mean(|score| score.1)))
    };
    let estimate = Estimate::from_weighted(&(0..pairs).filter_map(averaged).collect::<Vec<_>>())?;
    Some(Measurement { metric: metric.clone(), estimate, seed_deviation: sample_deviation(&means) })
}

fn sample_deviation(values: &[f64]) -> Option<f64> {
    let results: Vec<(f64, f64)> = values.iter().map(|&value| (value, 1.0)).collect();
    let estimate = Estimate::from_weighted(&results).filter(|_| values.len() > 1)?;
    Some(estimate.standard_error * (values.len() as f64).sqrt())
}

fn mean_of_groups(groups: &[PairGroup], pairs: usize) -> PairGroup {
    let metrics = groups.first().map(|group| group.metrics.as_slice()).unwrap_or_default().iter();
    let metrics = metrics.filter_map(|model| {
        let same = |group: &PairGroup| group.metrics.iter().find(|found| found.metric == model.metric).cloned();
        let parts: Vec<Measurement> = groups.iter().filter_map(same).collect();
        let estimate = Estimate::from_means(&parts.iter().map(|part| part.estimate).collect::<Vec<_>>())?;
        Some(Measurement { metric: model.metric.clone(), estimate, seed_deviation: None })
    });
    PairGroup { name: MEAN_OF_CATEGORIES.to_owned(), pairs, metrics: metrics.collect() }
}

fn mean_curves(seeds: &[&[PairResult]]) -> Vec<MeanCurve> {
    let results: Vec<&PairResult> = seeds.iter().flat_map(|results| results.iter()).collect();
    let Some(first) = results.first() else { return Vec::new() };
    let mean = |curve: &'static Curve| {
        let samples: Vec<&Vec<f64>> = results
            .iter()
            .flat_map(|result| &result.curves)
            .filter(|one| one.curve == curve)
            .map(|one| &one.shares)
            .collect();
        let share = |index: usize| samples.iter().map(|shares| shares[index]).sum::<f64>() / samples.len() as f64;
        MeanCurve { curve, shares: (0..curve.thresholds.len()).map(share).collect() }
    };
    first.curves.iter().map(|sample| mean(sample.curve)).collect()
}

#[cfg(test)]
mod tests;
