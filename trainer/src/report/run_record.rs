//! The files in the folder of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::ReportError;
use crate::monitor::metrics_file::METRICS;
use crate::monitor::picture_files;

/// Its configuration's name in a run's folder.
const CONFIG: &str = "config.toml";

/// Points that a curve is drawn through at most; a screen shows no more.
const MAX_POINTS: usize = 4000;

/// Pictures of one name that a page holds at most, so that it can still be sent.
const MAX_PICTURES: usize = 10;

/// One line of metrics: numbers by name. A line of another version may have other names.
pub(super) type Line = BTreeMap<String, Option<f64>>;

/// A run as it is shown.
#[derive(Debug, Default)]
pub(super) struct RunRecord {
    /// Its name on the page.
    pub(super) name: String,
    /// Its folder, as it was given.
    pub(super) folder: PathBuf,
    /// Lines of metrics, steps ascending, each step once; at least one.
    pub(super) lines: Vec<Line>,
    /// `config.toml` as it is, where there is one.
    pub(super) config: Option<String>,
    /// For every name the pictures by step, ascending.
    pub(super) pictures: BTreeMap<String, Vec<Picture>>,
}

/// A PNG file.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) step: u64,
    pub(super) png: Vec<u8>,
}

impl RunRecord {
    /// Reads a run's folder.
    pub(super) fn read(run: &Path) -> Result<Self, ReportError> {
        let lines = read_lines(run)?;
        let name = run.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| run.display().to_string()),
            folder: run.to_owned(),
            lines,
            config: read_if_there(&run.join(CONFIG))?,
            pictures: read_pictures(run)?,
        })
    }

    /// The newest line.
    pub(super) fn last(&self) -> Option<&Line> {
        self.lines.last()
    }

    /// Lines to draw curves through: all of them, or every so manieth, with the last.
    pub(super) fn drawn_lines(&self) -> impl Iterator<Item = &Line> {
        every(&self.lines, MAX_POINTS)
    }
}

/// Gives runs of the same name their folders as names, and if need be numbers.
pub(super) fn tell_apart(records: &mut [RunRecord]) {
    let repeated = |records: &[RunRecord]| -> BTreeSet<String> {
        let names = records.iter().map(|record| &record.name);
        let mut seen = BTreeSet::new();
        names.filter(|name| !seen.insert(*name)).cloned().collect()
    };
    let twice = repeated(records);
    for record in records.iter_mut().filter(|record| twice.contains(&record.name)) {
        record.name = record.folder.display().to_string();
    }
    let twice = repeated(records);
    for (number, record) in (1..).zip(records.iter_mut()).filter(|(_, record)| twice.contains(&record.name)) {
        record.name = format!("{} ({number})", record.name);
    }
}

fn read_lines(run: &Path) -> Result<Vec<Line>, ReportError> {
    let path = run.join(METRICS);
    let text = read_if_there(&path)?.unwrap_or_default();
    // A run that goes on may just be writing its last line; it is left out.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let by_step: BTreeMap<u64, Line> = lines.filter_map(|line| Some(((*line.get("step")?)? as u64, line))).collect();
    if by_step.is_empty() {
        return Err(ReportError::NoMetrics { run: run.to_owned(), metrics: path });
    }
    Ok(by_step.into_values().collect())
}

fn read_pictures(run: &Path) -> Result<BTreeMap<String, Vec<Picture>>, ReportError> {
    let listed = picture_files::list(run).map_err(|source| ReportError::Read { path: run.to_owned(), source })?;
    let read = |(step, path): &(u64, PathBuf)| {
        let read = fs::read(path).map(|png| Picture { step: *step, png });
        read.map_err(|source| ReportError::Read { path: path.clone(), source })
    };
    let of_name = |(name, files): (String, Vec<(u64, PathBuf)>)| {
        Ok((name, every(&files, MAX_PICTURES).map(read).collect::<Result<_, _>>()?))
    };
    listed.into_iter().map(of_name).collect()
}

fn read_if_there(path: &Path) -> Result<Option<String>, ReportError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReportError::Read { path: path.to_owned(), source }),
    }
}

/// At most `limit` items, evenly spread, the first and the last among them; `limit` is above 1.
fn every<T>(items: &[T], limit: usize) -> impl Iterator<Item = &T> {
    let count = items.len().min(limit);
    (0..count).map(move |i| &items[if items.len() > limit { i * (items.len() - 1) / (limit - 1) } else { i }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_of_many_keep_the_ends() {
        let items: Vec<usize> = (0..100).collect();
        assert_eq!(every(&items, 4).copied().collect::<Vec<_>>(), [0, 33, 66, 99]);
        assert_eq!(every(&items[..3], 4).count(), 3);
    }

    #[test]
    fn runs_of_one_name_are_told_apart() {
        let record = |name: &str, folder: &str| RunRecord {
            name: name.to_owned(),
            folder: folder.into(),
            ..RunRecord::default()
        };
        let mut records = [record("a", "x/a"), record("a", "y/a"), record("b", "b"), record("a", "x/a")];
        tell_apart(&mut records);
        assert_eq!(records.map(|record| record.name), ["x/a (1)", "y/a", "b", "x/a (4)"]);
    }

    #[test]
    fn half_lines_are_left_out_and_the_last_of_a_step_counts() {
        let run = tempfile::tempdir().unwrap();
        let text =
            "{\"step\":4,\"loss\":3.0}\n{\"step\":8,\"loss\":null}\n{\"step\":4,\"loss\":2.0}\n{\"step\":12,\"lo";
        fs::write(run.path().join(METRICS), text).unwrap();
        let record = RunRecord::read(run.path()).unwrap();
        assert_eq!(record.lines.iter().map(|line| line["loss"]).collect::<Vec<_>>(), [Some(2.0), None]);
    }
}
