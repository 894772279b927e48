//! The report as a page that needs nothing else: numbers, curves, and pictures of the best and the worst pairs.

use super::super::case::{Case, Unit};
use super::super::dataset::{DatasetError, Layout};
use super::drawing;
use super::table::cell;
use super::{Kind, Report, Row};
use crate::image::ResizeError;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
/// Pairs shown of each part of the data set, from either end.
const SHOWN_PAIRS: usize = 2;
/// Sequences whose masks are shown, from either end.
const SHOWN_SEQUENCES: usize = 2;

/// A page that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A picture is gone.
    #[error(transparent)]
    Dataset(#[from] DatasetError),
    /// A picture cannot be made smaller.
    #[error(transparent)]
    Resize(#[from] ResizeError),
    /// A picture cannot be written.
    #[error("a picture of the page could not be written")]
    Jpeg(#[from] ::image::ImageError),
}

/// The page, as HTML.
///
/// # Errors
/// [`PageError`] if a picture that it shows cannot be read again.
pub fn page(report: &Report) -> Result<String, PageError> {
    let title = format!("Correspondences on {}", report.layout);
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
        escaped(&found.map_or_else(|| id.to_owned(), |measurement| measurement.metric.label.clone()))
    };
    let header: String = ids.iter().map(|id| format!("<th>{}</th>", label(id))).collect();
    let mut table =
        format!("<div class=\"wide\"><table><thead><tr><th></th>{header}<th>ms a pair</th></tr></thead><tbody>");
    for (index, row) in report.rows.iter().enumerate() {
        let name = format!("<th>{}{}</th>", chip(index), escaped(&row.name));
        let cells: String = match &row.absent {
            Some(reason) => format!("<td colspan=\"{}\">not measured: {}</td>", ids.len() + 1, escaped(reason)),
            None => {
                let numbers = ids.iter().map(|id| row.measurement(id).map_or_else(|| "–".to_owned(), cell));
                let cost = row.cost.filter(|_| row.kind != Kind::Sift);
                let cost = cost.map_or_else(|| "–".to_owned(), |cost| format!("{:.0}", cost.pair_ms));
                numbers.chain([cost]).map(|text| format!("<td>{text}</td>")).collect()
            }
        };
        table += &format!("<tr>{name}{cells}</tr>");
    }
    table + "</tbody></table></div>"
}

fn details(report: &Report) -> String {
    let rows: Vec<(usize, &Row)> = report.rows.iter().enumerate().filter(|(_, row)| row.absent.is_none()).collect();
    let header: String =
        rows.iter().map(|(index, row)| format!("<th>{}{}</th>", chip(*index), escaped(&row.name))).collect();
    let mut table = format!("<div class=\"wide details\"><table><thead><tr><th></th>{header}</tr></thead><tbody>");
    for group in rows.first().map(|(_, row)| row.groups.as_slice()).unwrap_or_default() {
        table += &format!(
            "<tr class=\"part\"><th>{}, {} pairs</th>{}</tr>",
            escaped(&group.name),
            group.pairs,
            "<td></td>".repeat(rows.len())
        );
        for measurement in &group.metrics {
            let same = |row: &Row| {
                let group = row.groups.iter().find(|other| other.name == group.name)?;
                group.metrics.iter().find(|other| other.metric == measurement.metric).map(cell)
            };
            let cells: String = rows
                .iter()
                .map(|(_, row)| format!("<td>{}</td>", same(row).unwrap_or_else(|| "–".to_owned())))
                .collect();
            table += &format!("<tr><th>{}</th>{cells}</tr>", escaped(&measurement.metric.label));
        }
    }
    table + "</tbody></table></div>"
}

/// Of the first contestant, which is the model.
fn pictures(report: &Report) -> Result<String, PageError> {
    let Some(row) = report.rows.iter().find(|row| !row.cases.is_empty()) else {
        return Ok("<p>There is nothing to show.</p>".to_owned());
    };
    let Some(&rank) = report.layout.headline().first() else { return Ok(String::new()) };
    let label = row.measurement(rank).map_or(rank, |measurement| measurement.metric.label.as_str());
    let mut html = format!(
        "<p>Of {}, the pairs with the highest and the lowest value of <em>{}</em>. \
         <span class=\"key right\"></span>right <span class=\"key wrong\"></span>wrong, thicker the further off. \
         Point at a match for its error.</p>",
        escaped(&row.name),
        escaped(label)
    );
    for group in row.groups.iter().filter(|group| shows(report.layout, row, &group.name)) {
        let of_group = |case: &&Case| group.name == super::ALL || case.group.as_deref() == Some(&group.name);
        let mut cases: Vec<&Case> =
            row.cases.iter().filter(of_group).filter(|case| case.score(rank).is_some()).collect();
        cases.sort_by(|a, b| b.score(rank).unwrap_or_default().total_cmp(&a.score(rank).unwrap_or_default()));
        for (kind, case) in ends(&cases, SHOWN_PAIRS) {
            html += &format!("<h3>{}: {kind}</h3>", escaped(&group.name));
            html += &figure(case)?;
        }
    }
    Ok(html + &mask_strips(row)?)
}

/// Parts are shown where there are few; otherwise the whole.
fn shows(layout: Layout, row: &Row, group: &str) -> bool {
    match layout {
        Layout::HPatches => group != super::ALL || row.groups.len() == 1,
        Layout::Scenes | Layout::Spair => group == super::ALL,
    }
}

/// The first and last of `items`, none twice.
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

fn figure(case: &Case) -> Result<String, PageError> {
    let number = |score: &super::Score| match score.metric.unit {
        Unit::Share => format!("{} {:.1} %", score.metric.label, score.value * 100.0),
        Unit::Px => format!("{} {:.2} px", score.metric.label, score.value),
        Unit::Count => format!("{} {:.0}", score.metric.label, score.value),
    };
    let numbers: Vec<String> = case.scores.iter().take(6).map(number).collect();
    Ok(format!(
        "<figure>{}<figcaption>{} · {} · right up to {:.1} px</figcaption></figure>",
        drawing::pair(&case.exhibit)?,
        escaped(&case.name),
        escaped(&numbers.join(", ")),
        case.exhibit.within_px,
    ))
}

/// Masks carried along, of the sequences where that went best and worst.
fn mask_strips(row: &Row) -> Result<String, PageError> {
    const RANK: &str = "jf_davis";
    let mut sequences: Vec<(&str, Vec<&Case>)> = Vec::new();
    for case in row.cases.iter().filter(|case| case.exhibit.mask.is_some()) {
        match sequences.last_mut().filter(|(name, _)| *name == case.sequence) {
            Some((_, cases)) => cases.push(case),
            None => sequences.push((&case.sequence, vec![case])),
        }
    }
    if sequences.is_empty() {
        return Ok(String::new());
    }
    let mean = |cases: &[&Case]| {
        let scores: Vec<f64> = cases.iter().filter_map(|case| case.score(RANK)).collect();
        scores.iter().sum::<f64>() / scores.len().max(1) as f64
    };
    sequences.sort_by(|a, b| mean(&b.1).total_cmp(&mean(&a.1)));
    let ranked: Vec<&(&str, Vec<&Case>)> = sequences.iter().collect();
    let mut html =
        "<p>Masks of frame 0 carried through the frames: tinted as found, outlined in white as they are.</p>"
            .to_owned();
    for (kind, (name, cases)) in ends(&ranked, SHOWN_SEQUENCES) {
        html +=
            &format!("<h3>{}, {kind}: J&amp;F {:.1} %</h3><div class=\"strip\">", escaped(name), mean(cases) * 100.0);
        for case in cases {
            let Some(mask) = &case.exhibit.mask else { continue };
            let score = case.score(RANK).map(|score| format!(": {:.0} %", score * 100.0)).unwrap_or_default();
            let picture = drawing::masked_frame(&case.exhibit, mask)?;
            html += &format!("<figure>{picture}<figcaption>{}{score}</figcaption></figure>", escaped(&case.name));
        }
        html += "</div>";
    }
    Ok(html)
}
