//! A report on made-up runs.

use std::fs;
use std::path::Path;

use image::RgbImage;

use super::{ReportError, report};
use crate::monitor::{Metrics, Monitor, ProgressStyle};

/// A run that has reported twice, with a configuration and a picture.
fn make_run(folder: &Path, batch: u32) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.toml"), format!("seed = 0\nnote = \"<b>\"\n[optimizer]\nbatch = {batch}\n")).unwrap();
    let mut monitor = Monitor::open(folder, 0, 8, ProgressStyle::Lines).unwrap();
    monitor.record(&Metrics::sample(4)).unwrap();
    monitor.record(&Metrics { loss: 3.25, ..Metrics::sample(8) }).unwrap();
    monitor.picture("matched_cells", 8, &RgbImage::new(2, 2)).unwrap();
}

/// The page about runs in folders of these names.
fn page(names: &[&str]) -> String {
    let root = tempfile::tempdir().unwrap();
    let folders: Vec<_> = names.iter().map(|name| root.path().join(name)).collect();
    for (batch, folder) in (8..).zip(&folders) {
        make_run(folder, batch);
    }
    let out = root.path().join("report.html");
    let size = report(&folders, &out).unwrap();
    let page = fs::read_to_string(&out).unwrap();
    assert_eq!(page.len(), size);
    page
}

#[test]
fn all_runs_are_on_the_page_with_what_differs() {
    let page = page(&["first", "second"]);
    for expected in ["first", "second", "optimizer.batch", "<td>8</td><td>9</td>", "3.2500", "data:image/"] {
        assert!(page.contains(expected), "`{expected}` is not on the page");
    }
    assert!(!page.contains("<th scope=\"row\">seed</th>"), "what is equal is not listed");
    assert!(!page.contains("{{"), "a field of the template is left");
}

#[test]
fn names_and_configurations_are_escaped() {
    let page = page(
        &["<img src=x>&\"'", "</script><script>alert(1)"]
            .map(|name| name.replace('/', "∕"))
            .each_ref()
            .map(String::as_str),
    );
    assert!(page.contains("&lt;img src=x&gt;&amp;&quot;&#39;"));
    assert!(!page.contains("<img src=x>") && !page.contains("<script>alert"));
    assert!(page.contains("note = &quot;&lt;b&gt;&quot;"));
    assert!(page.contains(r"\u003cimg src=x>"), "the script's data are escaped in JSON's way");
}

#[test]
fn the_page_loads_nothing() {
    let page = page(&["only"]);
    assert!(page.contains("default-src 'none'"));
    for external in ["src=\"http", "href=\"http", "@import", "url(http", "fetch("] {
        assert!(!page.contains(external), "`{external}` is on the page");
    }
}

#[test]
fn a_folder_without_metrics_says_what_was_looked_for() {
    let root = tempfile::tempdir().unwrap();
    let error = report(&[root.path().to_owned()], &root.path().join("report.html")).unwrap_err();
    assert!(matches!(error, ReportError::NoMetrics { .. }));
    assert!(error.to_string().contains("metrics.jsonl"), "{error}");
    assert!(!root.path().join("report.html").exists());
}
