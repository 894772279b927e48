//! The page: a template in `page.html`, its style and its script, and what is filled in.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use image::codecs::jpeg::JpegEncoder;
use serde_json::json;

use super::configuration::{differences, number};
use super::figures;
use super::run_record::{Picture, RunRecord};
use crate::checkpoint::COMMIT;

const TEMPLATE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// JPEG quality of the pictures on the page; lines and small cells stay clear.
const JPEG_QUALITY: u8 = 88;

/// The whole page.
pub(super) fn render(records: &[RunRecord]) -> String {
    let names: Vec<_> = records.iter().map(|record| record.name.as_str()).collect();
    fill(TEMPLATE, |field| match field {
        "title" => escape(&format!("Pre-training: {}", names.join(", "))),
        "runs" => escape(&names.join(", ")),
        "commit" => escape(COMMIT),
        "style" => STYLE.to_owned(),
        "script" => SCRIPT.to_owned(),
        "data" => data(records),
        "figures" => table(&names, "figure", &figures::rows(records)),
        "configuration" => configuration(records, &names),
        "pictures" => pictures(records),
        unknown => unreachable!("the template has a field `{unknown}`"),
    })
}

/// Replaces each `{{field}}` of a template, once: what is filled in is not looked at again.
fn fill(template: &str, content: impl Fn(&str) -> String) -> String {
    let mut parts = template.split("{{");
    let mut page = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (field, rest) = part.split_once("}}").unwrap_or((part, ""));
        page.push_str(&content(field));
        page.push_str(rest);
    }
    page
}

/// Text as it may stand in an element or in a quoted attribute.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Data of the script: every run's metrics as columns.
fn data(records: &[RunRecord]) -> String {
    let run = |record: &RunRecord| {
        let lines: Vec<_> = record.drawn_lines().collect();
        let keys: BTreeSet<_> = lines.iter().flat_map(|line| line.keys()).collect();
        let column =
            |key: &String| lines.iter().map(|line| short(line.get(key).copied().flatten())).collect::<Vec<_>>();
        let columns: serde_json::Map<_, _> = keys.into_iter().map(|key| (key.clone(), column(key).into())).collect();
        let dim = record.config.as_deref().and_then(|config| number(config, "network.dim"));
        json!({ "name": record.name, "columns": columns, "dim": dim })
    };
    let text = json!({ "runs": records.iter().map(run).collect::<Vec<_>>() }).to_string();
    // In JSON `<` stands within strings alone; escaped it cannot end the script element.
    text.replace('<', "\\u003c")
}

/// Seven significant digits: a curve needs no more, and the page is half as long.
fn short(number: Option<f64>) -> Option<f64> {
    number.and_then(|number| format!("{number:.6e}").parse().ok())
}

/// A table with a column a run.
fn table(names: &[&str], corner: &str, rows: &[(impl AsRef<str>, Vec<Option<String>>)]) -> String {
    let mut html = format!("<div class=\"wide\"><table><thead><tr><th scope=\"col\">{}</th>", escape(corner));
    for (index, name) in names.iter().enumerate() {
        let _ = write!(html, "<th scope=\"col\"><i class=\"chip run-{}\"></i>{}</th>", index % 8, escape(name));
    }
    html.push_str("</tr></thead><tbody>");
    for (label, values) in rows {
        let _ = write!(html, "<tr><th scope=\"row\">{}</th>", escape(label.as_ref()));
        for value in values {
            let _ = write!(html, "<td>{}</td>", value.as_deref().map_or_else(|| "–".to_owned(), escape));
        }
        html.push_str("</tr>");
    }
    html.push_str("</tbody></table></div>");
    html
}

fn configuration(records: &[RunRecord], names: &[&str]) -> String {
    let configs: Vec<_> = records.iter().map(|record| record.config.as_deref().unwrap_or_default()).collect();
    let rows = differences(&configs);
    let mut html = match (records.len(), rows.is_empty()) {
        (1, _) => String::new(),
        (_, true) => "<p>The configurations are equal.</p>".to_owned(),
        (_, false) => table(names, "key", &rows),
    };
    // Of a single run there is nothing to compare, so all of it is shown.
    let open = if records.len() == 1 { " open" } else { "" };
    for record in records {
        let text = record.config.as_deref().unwrap_or("There is no config.toml in the run's folder.");
        let (name, folder) = (escape(&record.name), escape(&record.folder.display().to_string()));
        let _ = write!(
            html,
            "<details{open}><summary>All of {name} <span class=\"quiet\">{folder}</span></summary><pre>{}</pre></details>",
            escape(text)
        );
    }
    html
}

/// For every name of a picture a strip a run, so that runs compare.
fn pictures(records: &[RunRecord]) -> String {
    let names: BTreeSet<_> = records.iter().flat_map(|record| record.pictures.keys()).collect();
    if names.is_empty() {
        return "<p class=\"quiet\">These runs have kept no pictures.</p>".to_owned();
    }
    let mut html = String::new();
    for name in names {
        let _ = write!(html, "<h3>{}</h3>", escape(&capitalised(&name.replace('_', " "))));
        if let Some(text) = explanation(name) {
            let _ = write!(html, "<p class=\"quiet\">{text}</p>");
        }
        for (index, record) in records.iter().enumerate() {
            let Some(pictures) = record.pictures.get(name) else { continue };
            let run = escape(&record.name);
            let _ = write!(html, "<div class=\"strip-of\"><b><i class=\"chip run-{}\"></i>{run}</b>", index % 8);
            html.push_str("<div class=\"strip\">");
            for picture in pictures {
                html.push_str(&figure(picture, &format!("{}, {}", record.name, name.replace('_', " "))));
            }
            html.push_str("</div></div>");
        }
    }
    html
}

fn figure(picture: &Picture, what: &str) -> String {
    let step = picture.step;
    format!(
        "<figure><button type=\"button\" aria-label=\"Enlarge\"><img src=\"{}\" alt=\"{}, step {step}\"></button>\
         <figcaption>step {step}</figcaption></figure>",
        embedded(&picture.png),
        escape(what)
    )
}

/// A picture as an address that holds it: as JPEG where that is smaller, which it is for
/// photographs several times over.
fn embedded(png: &[u8]) -> String {
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
    let encoded = image::load_from_memory(png).and_then(|picture| picture.to_rgb8().write_with_encoder(encoder));
    if encoded.is_ok() && jpeg.len() < png.len() {
        format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg))
    } else {
        format!("data:image/png;base64,{}", BASE64_STANDARD.encode(png))
    }
}

/// Explanations of the trainer's pictures.
fn explanation(name: &str) -> Option<&'static str> {
    match name {
        "matched_cells" => Some(
            "Two views of each image. On the left a cell's colour tells where it is; on the right a cell has the \
             colour of the cells that it is matched with. Where the matching is right, the same part of the scene \
             has the same colour in both. Lines join the best pairs.",
        ),
        "principal_components" => Some(
            "Each image, then its res4 and its res5 map: the first three principal components of the features as \
             red, green and blue. Within a picture equal colours are equal features; between steps the axes may turn.",
        ),
        _ => None,
    }
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}
