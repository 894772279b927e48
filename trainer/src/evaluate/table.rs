//! Results of an evaluation: for each model, mean and standard deviation over repetitions.

use std::fmt::Write as _;

use serde::Serialize;

/// The outcome of one repetition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Repetition {
    /// Seed of everything random in it.
    pub seed: u64,
    /// The measures in the order of the report's names, as shares of 1.
    pub measures: Vec<f64>,
    /// Further results: measures of the classes, chosen hyper-parameters.
    pub details: serde_json::Value,
}

/// A model and its results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReportRow {
    /// Its name on the command line.
    pub model: String,
    /// `densecl`, `moco-v2`, `random`, …
    pub method: String,
    /// The backbone.
    pub architecture: String,
    /// One entry a seed.
    pub repetitions: Vec<Repetition>,
}

/// A whole evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The subcommand.
    pub task: &'static str,
    /// Data and method of the evaluation, in a sentence or two.
    pub description: String,
    /// Every setting that the outcome depends on.
    pub settings: serde_json::Value,
    /// Names of the measures.
    pub measures: Vec<String>,
    /// One row a model, in the order of the command line.
    pub rows: Vec<ReportRow>,
}

/// A mean and the sample standard deviation (over n − 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// `None` for a single value.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Computes both of at least one value.
    pub fn from_values(values: &[f64]) -> Self {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let deviation = (values.len() > 1).then(|| (squares / (values.len() - 1) as f64).sqrt());
        Self { mean, deviation }
    }

    /// Formats it in percent.
    fn percent(self) -> String {
        match self.deviation {
            Some(deviation) => format!("{:.1} ± {:.1}", self.mean * 100.0, deviation * 100.0),
            None => format!("{:.1}", self.mean * 100.0),
        }
    }
}

impl ReportRow {
    /// Mean and deviation over the repetitions, for each measure.
    pub fn spreads(&self) -> Vec<Spread> {
        let count = self.repetitions.first().map_or(0, |repetition| repetition.measures.len());
        let values = |i: usize| self.repetitions.iter().map(|repetition| repetition.measures[i]).collect::<Vec<_>>();
        (0..count).map(|i| Spread::from_values(&values(i))).collect()
    }
}

impl Report {
    /// Formats the report as a table.
    pub fn text(&self) -> String {
        let header = ["model", "method", "backbone"].map(str::to_owned).into_iter();
        let mut lines = vec![header.chain(self.measures.iter().cloned()).collect::<Vec<_>>()];
        for row in &self.rows {
            let names = [&row.model, &row.method, &row.architecture].map(Clone::clone);
            lines.push(names.into_iter().chain(row.spreads().into_iter().map(Spread::percent)).collect());
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
        let mut text = format!("{}\n\n", self.description);
        for line in lines {
            let cells = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        text
    }

    /// Formats the report as JSON, with mean and deviation for each measure by name.
    ///
    /// # Errors
    /// If a measure is not finite.
    pub fn json(&self) -> serde_json::Result<String> {
        let mut value = serde_json::to_value(self)?;
        for (row, to) in self.rows.iter().zip(value["rows"].as_array_mut().into_iter().flatten()) {
            let summary = self.measures.iter().zip(row.spreads()).map(|(name, spread)| {
                (name.clone(), serde_json::json!({ "mean": spread.mean, "deviation": spread.deviation }))
            });
            to["summary"] = serde_json::Value::Object(summary.collect());
        }
        serde_json::to_string_pretty(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(seeds: &[f64]) -> Report {
        let repetition = |(seed, &measure): (usize, &f64)| Repetition {
            seed: seed as u64,
            measures: vec![measure, 1.0],
            details: serde_json::Value::Null,
        };
        let row = ReportRow {
            model: "runs/a".to_owned(),
            method: "densecl".to_owned(),
            architecture: "resnet18".to_owned(),
            repetitions: seeds.iter().enumerate().map(repetition).collect(),
        };
        Report {
            task: "knn",
            description: "Two images.".to_owned(),
            settings: serde_json::Value::Null,
            measures: vec!["top-1 %".to_owned(), "mean class %".to_owned()],
            rows: vec![row],
        }
    }

    #[test]
    fn a_row_is_mean_and_sample_deviation() {
        let text = report(&[0.5, 0.6, 0.7]).text();
        assert!(text.starts_with("Two images.\n\nmodel   method   backbone  top-1 %      mean class %\n"), "{text}");
        assert!(text.ends_with("runs/a  densecl  resnet18  60.0 ± 10.0  100.0 ± 0.0\n"), "{text}");
        let json: serde_json::Value = serde_json::from_str(&report(&[0.5, 0.6, 0.7]).json().unwrap()).unwrap();
        let summary = &json["rows"][0]["summary"]["top-1 %"];
        assert!((summary["deviation"].as_f64().unwrap() - 0.1).abs() < 1e-12);
        assert_eq!(json["rows"][0]["repetitions"][2]["seed"], 2);
    }

    #[test]
    fn a_single_repetition_has_no_deviation() {
        assert!(report(&[0.5]).text().contains("resnet18  50.0  "), "{}", report(&[0.5]).text());
    }
}
