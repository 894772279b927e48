//! The numbers of an evaluation: rows of methods, as text, as JSON and as a page.

mod drawing;
mod page;
mod table;

use serde::Serialize;

use super::dataset::{Dataset, DatasetLayout};
use super::metrics::Estimate;
use super::pair_result::{Curve, Metric, PairResult, Score};
use super::protocol::MethodResult;

pub use self::page::{PageError, page};
pub use self::table::text_table;

/// The evaluation of several methods on one data set. Serialised it is the document that `--format json` prints;
/// fields are only ever added to it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of this document.
    pub schema_version: u32,
    /// How the data set is laid out.
    pub layout: DatasetLayout,
    /// How many sequences it has; pairs, where these stand alone.
    pub sequences: usize,
    /// How many pairs of pictures were matched.
    pub pairs: usize,
    /// Threads that everything was computed with.
    pub threads: usize,
    /// One for each method, in the order they were asked for.
    pub rows: Vec<ReportRow>,
}

/// Which kind of method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MethodKind {
    /// The model that is evaluated.
    Model,
    /// The same graph with random weights.
    Random,
    /// Raw patches of pixels.
    Rgb,
    /// SIFT.
    Sift,
}

/// One method's numbers.
#[derive(Clone, Debug, Serialize)]
pub struct ReportRow {
    /// What was evaluated.
    pub name: String,
    /// What kind it is.
    pub kind: MethodKind,
    /// How many times, with other random weights.
    pub seeds: usize,
    /// Why there are no numbers, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absent: Option<String>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Over all pairs first, then over parts of them.
    pub groups: Vec<PairGroup>,
    /// Shares of points within rising distances, over all pairs.
    pub curves: Vec<MeanCurve>,
    /// What was measured, of the first seed.
    #[serde(skip)]
    pub pair_results: Vec<PairResult>,
}

/// Median times in milliseconds, of decoded pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// From a picture to its features.
    pub describe_ms: f64,
    /// From two pictures' features to their matches.
    pub match_ms: f64,
    /// A pair of pictures: twice the former and once the latter.
    pub pair_ms: f64,
}

/// Numbers over a part of the pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PairGroup {
    /// `all`, or which part.
    pub name: String,
    /// How many pairs.
    pub pairs: usize,
    /// The numbers.
    pub metrics: Vec<Measurement>,
}

/// A number over a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// What it is of.
    #[serde(flatten)]
    pub metric: Metric,
    /// Mean and standard error over the pairs, each first averaged over the seeds.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// The sample standard deviation of the mean over the seeds, if there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_deviation: Option<f64>,
}

/// A curve's mean over all pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MeanCurve {
    /// Which.
    #[serde(flatten)]
    pub curve: &'static Curve,
    /// One a threshold.
    pub shares: Vec<f64>,
}

/// The name of the group of all pairs.
const ALL: &str = "all";
/// Categories with the same say, whatever the number of their pairs.
const MEAN_OF_CATEGORIES: &str = "mean of the categories";

impl Report {
    /// An empty one about `dataset`.
    pub fn new(dataset: &Dataset, threads: usize) -> Self {
        Self {
            schema_version: 1,
            layout: dataset.layout(),
            sequences: dataset.sequences(),
            pairs: dataset.pairs(),
            threads,
            rows: Vec::new(),
        }
    }

    /// How much there was to do, and with what.
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
    /// From what was measured, once for each seed; nothing if that is nothing.
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

    /// A method that did not appear.
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

    /// A number over all pairs.
    pub fn measurement(&self, id: &str) -> Option<&Measurement> {
        self.groups.first()?.metrics.iter().find(|measurement| measurement.metric.id == id)
    }
}

impl DatasetLayout {
    /// What tells most, by the metrics' names, the first of which ranks pairs.
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
    // Every seed saw the same pairs in the same order; what a pair lacks with one it may have with another.
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
