//! The report as a self-contained HTML page: numbers, curves, and images of the best and the worst pairs.

use super::super::dataset::DatasetLayout;
use super::super::pair_result::{Metric, PairResult, Unit};
use super::drawing;
use super::page_error::PageError;
use super::table::cell;
use super::{MethodKind, Report, ReportRow};

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// Number of the best, and of the worst, pairs shown of each group.
const SHOWN_PAIRS: usize = 2;
/// Number of the best, and of the worst, sequences whose masks are shown.
const SHOWN_SEQUENCES: usize = 2;

/// The report as HTML.
///
/// # Errors
/// [`PageError`] if one of the images on the page cannot be read again.
pub fn page(report: &Report) -> Result<String, PageError> {
    let title = format!("Correspondences on {}", report.title);
    let summary =
        format!("{}. ± is the standard error over pairs, in brackets the deviation over seeds.", report.extent());
    let parts = [
        ("title", title),
        ("style", STYLE.to_owned()),
        ("summary", summary),
        ("headline", headline(report)),
        ("curves", drawing::curves(&report.rows)),
        ("pictures", pictures(report)?),
        ("details", details(report)),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Ok(parts
        .into_iter()
        .fold(TEMPLATE.to_owned(), |page, (name, part)| page.replace(&format!("{{{{{name}}}}}"), &part)))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn chip(index: usize) -> String {
    format!("<span class=\"chip row-{}\"></span>", index % 8)
}

fn headline(report: &Report) -> String {
    let ids = report.layout.headline();
    let label = |id: &str| {
        let found = report.rows.iter().find_map(|row| row.measurement(id));
        found.map_or_else(|| id.to_owned(), |measurement| measurement.metric.label.clone())
    };
    let header: Vec<String> = ids.iter().map(|id| label(id)).chain(["ms a pair".to_owned()]).collect();
    let body = report.rows.iter().enumerate().map(|(index, row)| {
        let name = format!("{}{}", chip(index), escaped(&row.name));
        if let Some(reason) = &row.absent {
            let columns = header.len();
            return format!("<tr><th>{name}</th><td colspan=\"{columns}\">not measured: {}</td></tr>", escaped(reason));
        }
        let numbers = ids.iter().map(|id| row.measurement(id).map_or_else(|| NONE.to_owned(), cell));
        let cost = row.cost.filter(|_| row.kind != MethodKind::Sift);
        let cost = cost.map_or_else(|| NONE.to_owned(), |cost| format!("{:.0}", cost.pair_ms));
        line(&name, numbers.chain([cost]))
    });
    let header: Vec<String> = header.iter().map(|label| escaped(label)).collect();
    table("wide", &header, body)
}

fn details(report: &Report) -> String {
    let rows: Vec<(usize, &ReportRow)> =
        report.rows.iter().enumerate().filter(|(_, row)| row.absent.is_none()).collect();
    let header: Vec<String> =
        rows.iter().map(|(index, row)| format!("{}{}", chip(*index), escaped(&row.name))).collect();
    let groups = rows.first().map(|(_, row)| row.groups.as_slice()).unwrap_or_default();
    let body = groups.iter().flat_map(|group| {
        let same = |row: &ReportRow, metric: &Metric| {
            let group = row.groups.iter().find(|other| other.name == group.name)?;
            group.metrics.iter().find(|other| other.metric == *metric).map(cell)
        };
        let number = |row: &ReportRow, metric: &Metric| same(row, metric).unwrap_or_else(|| NONE.to_owned());
        let lines = group.metrics.iter().map(|measurement| {
            let metric = &measurement.metric;
            line(&escaped(&metric.label), rows.iter().map(|(_, row)| number(row, metric)))
        });
        let (name, columns) = (escaped(&group.name), rows.len() + 1);
        let title = format!("<tr class=\"part\"><th colspan=\"{columns}\">{name}, {} pairs</th></tr>", group.pairs);
        std::iter::once(title).chain(lines).collect::<Vec<String>>()
    });
    table("wide details", &header, body)
}

/// Text for a missing number.
const NONE: &str = "–";

fn table(class: &str, header: &[String], body: impl Iterator<Item = String>) -> String {
    let (header, body) = (header.join("</th><th>"), body.collect::<Vec<String>>().concat());
    format!(
        "<div class=\"{class}\"><table><thead><tr><th></th><th>{header}</th></tr></thead><tbody>{body}</tbody></table></div>"
    )
}

fn line(name: &str, cells: impl Iterator<Item = String>) -> String {
    format!("<tr><th>{name}</th><td>{}</td></tr>", cells.collect::<Vec<String>>().join("</td><td>"))
}

/// The pairs of the first evaluated method, which is a model, with the highest and lowest values of its main metric.
fn pictures(report: &Report) -> Result<String, PageError> {
    let Some(row) = report.rows.iter().find(|row| !row.pair_results.is_empty()) else {
        return Ok("<p>There is nothing to show.</p>".to_owned());
    };
    let Some(&rank) = report.layout.headline().first() else { return Ok(String::new()) };
    let label = row.measurement(rank).map_or(rank, |measurement| measurement.metric.label.as_str());
    let mut parts = vec![format!(
        "<p>Of {}, the pairs with the highest and the lowest value of <em>{}</em>. \
         <span class=\"key right\"></span>right <span class=\"key wrong\"></span>wrong, thicker the further off. \
         Point at a match for its error.</p>",
        escaped(&row.name),
        escaped(label)
    )];
    for group in row.groups.iter().filter(|group| shows(report.layout, row, &group.name)) {
        let of_group = |result: &&PairResult| group.name == super::ALL || result.group.as_deref() == Some(&group.name);
        let mut results: Vec<&PairResult> =
            row.pair_results.iter().filter(of_group).filter(|result| result.score(rank).is_some()).collect();
        results.sort_by(|a, b| b.score(rank).unwrap_or_default().total_cmp(&a.score(rank).unwrap_or_default()));
        for (kind, result) in ends(&results, SHOWN_PAIRS) {
            parts.push(format!("<h3>{}: {kind}</h3>{}", escaped(&group.name), figure(result)?));
        }
    }
    parts.push(mask_strips(row)?);
    Ok(parts.concat())
}

/// Tells whether the pairs of a group are shown: groups if there are few of them, otherwise the group of all pairs.
fn shows(layout: DatasetLayout, row: &ReportRow, group: &str) -> bool {
    match layout {
        DatasetLayout::HPatches => group != super::ALL || row.groups.len() == 1,
        DatasetLayout::Scenes | DatasetLayout::Spair => group == super::ALL,
    }
}

/// The first `count` and the last `count` of `items`, without repetition.
fn ends<T: Copy>(items: &[T], count: usize) -> Vec<(&'static str, T)> {
    let best = count.min(items.len());
    let worst = items.len().saturating_sub(count).max(best);
    let (first, last) = (&items[..best], &items[worst..]);
    first
        .iter()
        .map(|&item| ("among the best", item))
        .chain(last.iter().map(|&item| ("among the worst", item)))
        .collect()
}

fn figure(result: &PairResult) -> Result<String, PageError> {
    let number = |score: &super::Score| match score.metric.unit {
        Unit::Share => format!("{} {:.1} %", score.metric.label, score.value * 100.0),
        Unit::Px => format!("{} {:.2} px", score.metric.label, score.value),
        Unit::Count => format!("{} {:.0}", score.metric.label, score.value),
    };
    let numbers: Vec<String> = result.scores.iter().take(6).map(number).collect();
    Ok(format!(
        "<figure>{}<figcaption>{} · {} · right up to {:.1} px</figcaption></figure>",
        drawing::pair(&result.illustration)?,
        escaped(&result.name),
        escaped(&numbers.join(", ")),
        result.illustration.within_px,
    ))
}

/// Propagated masks of the sequences with the highest and the lowest J&F.
fn mask_strips(row: &ReportRow) -> Result<String, PageError> {
    const RANK: &str = "jf_davis";
    let mut sequences: Vec<(&str, Vec<&PairResult>)> = Vec::new();
    for result in row.pair_results.iter().filter(|result| result.illustration.mask.is_some()) {
        match sequences.last_mut().filter(|(name, _)| *name == result.sequence) {
            Some((_, results)) => results.push(result),
            None => sequences.push((&result.sequence, vec![result])),
        }
    }
    if sequences.is_empty() {
        return Ok(String::new());
    }
    let mean = |results: &[&PairResult]| {
        let scores: Vec<f64> = results.iter().filter_map(|result| result.score(RANK)).collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    };
    sequences.sort_by(|a, b| mean(&b.1).total_cmp(&mean(&a.1)));
    let ranked: Vec<&(&str, Vec<&PairResult>)> = sequences.iter().collect();
    let opening = "<p>Masks of frame 0 carried through the frames: tinted as found, outlined in white as they are.</p>";
    let mut parts = vec![opening.to_owned()];
    for (kind, (name, results)) in ends(&ranked, SHOWN_SEQUENCES) {
        let frames = results.iter().filter_map(|result| Some((result, result.illustration.mask.as_ref()?))).map(
            |(result, mask)| {
                let score = result.score(RANK).map(|score| format!(": {:.0} %", score * 100.0)).unwrap_or_default();
                let picture = drawing::masked_frame(&result.illustration, mask)?;
                Ok(format!("<figure>{picture}<figcaption>{}{score}</figcaption></figure>", escaped(&result.name)))
            },
        );
        let frames = frames.collect::<Result<Vec<String>, PageError>>()?.concat();
        let share = mean(results) * 100.0;
        parts.push(format!(
            "<h3>{}, {kind}: J&amp;F {share:.1} %</h3><div class=\"strip\">{frames}</div>",
            escaped(name)
        ));
    }
    Ok(parts.concat())
}
