//! The numbers of an evaluation, as text and as JSON.

use serde::Serialize;

/// A mean and its standard error, over pairs of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MeanOverPairs {
    /// The mean.
    pub mean: f64,
    /// The standard deviation over pairs divided by the root of their number; 0 for a single pair.
    pub standard_error: f64,
}

impl MeanOverPairs {
    /// Of `values`, one a pair; NaN of none.
    pub fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>();
        let standard_error = if values.len() > 1 { (squares / (count - 1.0) / count).sqrt() } else { 0.0 };
        Self { mean, standard_error }
    }
}

/// The share of points whose error is below a threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Threshold {
    /// In pixels of the target, or as a share of the target's longer side.
    pub threshold: f64,
    /// The share, from 0 to 1.
    #[serde(flatten)]
    pub share: MeanOverPairs,
}

/// What was measured on a set of pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// How many pairs of pictures.
    pub pairs: usize,
    /// Mutual nearest neighbours found in a pair.
    pub matches: MeanOverPairs,
    /// Mean matching accuracy: the share of those matches that are less than so many pixels off.
    pub mma: Vec<Threshold>,
    /// Percentage of correct keypoints, as a share: of a regular grid of points that are visible in the target, those
    /// found less than so many pixels off.
    pub pck_px: Vec<Threshold>,
    /// The same, with the threshold as a share of the target's longer side.
    pub pck_side: Vec<Threshold>,
}

/// The evaluation of one extractor.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What was evaluated.
    pub extractor: String,
    /// Number of sequences.
    pub sequences: usize,
    /// Over all pairs.
    pub all: Summary,
    /// Over the pairs with a change of viewpoint (`v_*`), if there are any.
    pub viewpoint: Option<Summary>,
    /// Over the pairs with a change of illumination (`i_*`), if there are any.
    pub illumination: Option<Summary>,
}

type PickSummary = fn(&Report) -> Option<&Summary>;
type PickCurve = fn(&Summary) -> &[Threshold];

/// A table with one column for each report; shares in percent, `±` the standard error over pairs.
pub fn text_table(reports: &[Report]) -> String {
    let mut rows: Vec<Vec<String>> = vec![header(reports)];
    let parts: [(&str, PickSummary); 3] = [
        ("all", |report| Some(&report.all)),
        ("viewpoint", |report| report.viewpoint.as_ref()),
        ("illumination", |report| report.illumination.as_ref()),
    ];
    for (part, pick) in parts {
        let summaries: Vec<&Summary> = reports.iter().filter_map(pick).collect();
        if summaries.len() == reports.len() && !summaries.is_empty() {
            rows.extend(part_rows(part, &summaries));
        }
    }
    aligned(&rows)
}

fn header(reports: &[Report]) -> Vec<String> {
    std::iter::once(String::new()).chain(reports.iter().map(|report| report.extractor.clone())).collect()
}

fn part_rows(part: &str, summaries: &[&Summary]) -> Vec<Vec<String>> {
    let row = |name: String, cell: &dyn Fn(&Summary) -> String| {
        std::iter::once(name).chain(summaries.iter().map(|summary| cell(summary))).collect::<Vec<_>>()
    };
    let mut rows = vec![
        row(format!("{part}: pairs"), &|summary| summary.pairs.to_string()),
        row(format!("{part}: matches a pair"), &|summary| {
            format!("{:.0} ± {:.0}", summary.matches.mean, summary.matches.standard_error)
        }),
    ];
    let curves: [(&str, f64, &str, PickCurve); 3] = [
        ("MMA", 1.0, " px", |summary| &summary.mma),
        ("PCK", 1.0, " px", |summary| &summary.pck_px),
        ("PCK", 100.0, " % of the side", |summary| &summary.pck_side),
    ];
    for (name, factor, unit, curve) in curves {
        let thresholds = summaries.first().map_or(&[][..], |summary| curve(summary));
        for (index, threshold) in thresholds.iter().enumerate() {
            let name = format!("{part}: {name} at {}{unit}", threshold.threshold * factor);
            rows.push(row(name, &|summary| curve(summary).get(index).map_or_else(String::new, percent)));
        }
    }
    rows
}

fn percent(threshold: &Threshold) -> String {
    format!("{:.1} ± {:.1} %", threshold.share.mean * 100.0, threshold.share.standard_error * 100.0)
}

/// Columns as wide as their widest cell; the first to the left, the others to the right.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width - cell.chars().count());
            let parts = if column == 0 { ["", cell, &padding] } else { ["  ", &padding, cell] };
            line.extend(parts);
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_the_mean() {
        let mean = MeanOverPairs::of(&[1.0, 2.0, 3.0, 4.0]);
        assert!((mean.mean - 2.5).abs() < 1e-12);
        assert!((mean.standard_error - (5.0_f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
        assert_eq!(MeanOverPairs::of(&[0.5]), MeanOverPairs { mean: 0.5, standard_error: 0.0 });
    }

    #[test]
    fn the_table_has_a_column_a_report() {
        let share = MeanOverPairs { mean: 0.5, standard_error: 0.0125 };
        let curve = |threshold| vec![Threshold { threshold, share }];
        let summary = Summary { pairs: 7, matches: share, mma: curve(3.0), pck_px: curve(10.0), pck_side: curve(0.05) };
        let report = |extractor: &str| Report {
            extractor: extractor.to_owned(),
            sequences: 2,
            all: summary.clone(),
            viewpoint: Some(summary.clone()),
            illumination: None,
        };
        let table = text_table(&[report("res3"), report("patches")]);
        assert!(table.contains("all: MMA at 3 px                   50.0 ± 1.2 %  50.0 ± 1.2 %\n"), "{table}");
        assert!(table.contains("viewpoint: PCK at 5 % of the side"), "{table}");
        assert!(!table.contains("illumination"));
    }
}
