//! The report as text.

use super::super::pair_result::Unit;
use super::{Measurement, MethodKind, Report, ReportRow};

/// Largest number of methods in the table with a column for each.
const MAX_COLUMNS: usize = 6;

/// The report as text: a table of the main metrics with a line for each method, and, for few methods, a table of all
/// metrics with a column for each. Shares are in percent, `±` is the standard error over pairs, `(…)` the standard
/// deviation over seeds.
pub fn text_table(report: &Report) -> String {
    let mut text = format!("{}: {}\n\n", report.title, report.extent());
    text += &aligned(&headline_rows(report));
    for row in &report.rows {
        if let Some(reason) = &row.absent {
            text.extend(["\n", &row.name, ": not measured: ", reason, "\n"]);
        }
    }
    let present: Vec<&ReportRow> = report.rows.iter().filter(|row| row.absent.is_none()).collect();
    if present.len() <= MAX_COLUMNS {
        text.push('\n');
        text += &aligned(&detailed_rows(&present));
    }
    text
}

/// A mean as printed text.
pub(super) fn cell(measurement: &Measurement) -> String {
    let (factor, digits, unit) = match measurement.metric.unit {
        Unit::Share => (100.0, 1, " %"),
        Unit::Px => (1.0, 2, " px"),
        Unit::Count => (1.0, 0, ""),
    };
    let number = |value: f64| format!("{:.digits$}", value * factor);
    let estimate = measurement.estimate;
    let seeds = measurement.seed_deviation.map(|deviation| format!(" ({})", number(deviation))).unwrap_or_default();
    format!("{} ± {}{seeds}{unit}", number(estimate.mean), number(estimate.standard_error))
}

fn headline_rows(report: &Report) -> Vec<Vec<String>> {
    let headline = report.layout.headline();
    let label = |id: &str| {
        let found = report.rows.iter().find_map(|row| row.measurement(id));
        found.map_or_else(|| id.to_owned(), |measurement| measurement.metric.label.clone())
    };
    let mut rows = vec![vec![String::new()]];
    rows[0].extend(headline.iter().map(|id| label(id)));
    rows[0].push("ms a pair".to_owned());
    for row in &report.rows {
        let mut line = vec![row.name.clone()];
        line.extend(headline.iter().map(|id| row.measurement(id).map_or_else(|| "-".to_owned(), cell)));
        // SIFT runs in another process, so that its times cannot be compared.
        let cost = row.cost.filter(|_| row.kind != MethodKind::Sift);
        line.push(cost.map_or_else(|| "-".to_owned(), |cost| format!("{:.0}", cost.pair_ms)));
        rows.push(line);
    }
    rows
}

fn detailed_rows(methods: &[&ReportRow]) -> Vec<Vec<String>> {
    let header = std::iter::once(String::new()).chain(methods.iter().map(|row| row.name.clone())).collect();
    let mut rows = vec![header];
    // A method may lack a metric. There is a line for every metric of the method with the most metrics.
    let groups: Vec<(&str, usize)> =
        methods.first().map_or_else(Vec::new, |row| row.groups.iter().map(|g| (g.name.as_str(), g.pairs)).collect());
    for (name, pairs) in groups {
        rows.push(vec![format!("{name}: {pairs} pairs")]);
        let metrics =
            |row: &'_ ReportRow| row.groups.iter().find(|group| group.name == name).map(|group| group.metrics.clone());
        let columns: Vec<Vec<Measurement>> = methods.iter().map(|row| metrics(row).unwrap_or_default()).collect();
        let Some(longest) = columns.iter().max_by_key(|metrics| metrics.len()) else { continue };
        for model in longest {
            let same = |metrics: &Vec<Measurement>| metrics.iter().find(|found| found.metric == model.metric).map(cell);
            let cells = columns.iter().map(|metrics| same(metrics).unwrap_or_else(|| "-".to_owned()));
            rows.push(std::iter::once(format!("  {}", model.metric.label)).chain(cells).collect());
        }
    }
    rows
}

/// Columns as wide as their widest cell, the first one aligned left, the others right.
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
