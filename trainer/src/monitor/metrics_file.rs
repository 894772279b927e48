//! `metrics.jsonl`: a JSON object a line, each step once, steps ascending.
//!
//! A killed run may have written lines after its last checkpoint, and an incomplete line. When it is
//! resumed they are cut off, because those steps will be taken and written again.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::MonitorError;
use super::metrics::Metrics;
use densecl_models::atomic_file;

/// Name of the file in a run's folder.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// The file, open for more lines.
#[derive(Debug)]
pub(super) struct MetricsFile {
    path: PathBuf,
    file: fs::File,
    seconds: f64,
}

/// The fields of a line that resuming needs.
#[derive(Deserialize)]
struct Line {
    step: u64,
    #[serde(default)]
    seconds: f64,
}

impl MetricsFile {
    /// Opens the file of the run in the folder `run`, which goes on after `taken` steps.
    pub(super) fn open(run: &Path, taken: u64) -> Result<Self, MonitorError> {
        let path = run.join(METRICS);
        let seconds = cut(&path, taken).map_err(MonitorError::io(&path))?;
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(MonitorError::io(&path))?;
        Ok(Self { path, file, seconds })
    }

    /// Wall time that the run had taken when it was opened, in seconds.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Appends a line.
    pub(super) fn write(&mut self, metrics: &Metrics) -> Result<(), MonitorError> {
        let encoded = serde_json::to_string(metrics);
        let line = encoded.map_err(|source| MonitorError::Metrics { step: metrics.step, source })? + "\n";
        // One call a line: a reader that follows the file never sees a line without its end.
        self.file.write_all(line.as_bytes()).map_err(MonitorError::io(&self.path))
    }
}

/// Keeps the lines of the first `taken` steps; returns the last one's seconds.
fn cut(path: &Path, taken: u64) -> io::Result<f64> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0.0),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut kept = BTreeMap::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        match serde_json::from_str::<Line>(line) {
            // Of a step that was taken twice, the last line belongs to the state that was continued.
            Ok(Line { step, seconds }) if step <= taken => drop(kept.insert(step, (line, seconds))),
            Ok(_) => {}
            Err(_) => tracing::warn!(path = %path.display(), "an unreadable line of metrics is left out"),
        }
    }
    let whole: String = kept.values().flat_map(|(line, _)| [*line, "\n"]).collect();
    if whole.as_bytes() != bytes.as_slice() {
        atomic_file::write(path, whole.as_bytes())?;
    }
    Ok(kept.last_entry().map_or(0.0, |entry| entry.get().1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(run: &Path) -> Vec<u64> {
        let text = fs::read_to_string(run.join(METRICS)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "{text:?} ends within a line");
        text.lines().map(|line| serde_json::from_str::<Metrics>(line).unwrap().step).collect()
    }

    fn write(run: &Path, taken: u64, new: &[u64]) {
        let mut file = MetricsFile::open(run, taken).unwrap();
        for &step in new {
            file.write(&Metrics::sample(step)).unwrap();
        }
    }

    #[test]
    fn lines_after_the_checkpoint_are_cut_off() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), 0, &[4, 8, 12, 16]);
        write(run.path(), 8, &[12, 16, 20]);
        assert_eq!(steps(run.path()), [4, 8, 12, 16, 20]);
        write(run.path(), 0, &[4]);
        assert_eq!(steps(run.path()), [4], "a run that starts anew keeps none");
    }

    #[test]
    fn a_half_written_line_is_cut_off() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), 0, &[4, 8]);
        let path = run.path().join(METRICS);
        let mut text = fs::read_to_string(&path).unwrap();
        text.push_str("{\"step\":8,\"epo");
        fs::write(&path, text).unwrap();
        write(run.path(), 8, &[12]);
        assert_eq!(steps(run.path()), [4, 8, 12]);
    }

    #[test]
    fn a_last_line_without_its_end_gets_one() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), 0, &[4]);
        let path = run.path().join(METRICS);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.trim_end()).unwrap();
        write(run.path(), 4, &[8]);
        assert_eq!(steps(run.path()), [4, 8]);
    }

    #[test]
    fn a_step_written_twice_is_there_once() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), 0, &[4, 8, 12, 8, 12]);
        write(run.path(), 12, &[16]);
        assert_eq!(steps(run.path()), [4, 8, 12, 16]);
    }

    #[test]
    fn time_goes_on_where_it_stopped() {
        let run = tempfile::tempdir().unwrap();
        write(run.path(), 0, &[4, 8, 12]);
        let seconds = MetricsFile::open(run.path(), 8).unwrap().seconds();
        assert!((seconds - Metrics::sample(8).seconds).abs() < f64::EPSILON);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error() {
        let path = PathBuf::from("/dev/full");
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let written = MetricsFile { path, file, seconds: 0.0 }.write(&Metrics::sample(1));
        assert!(matches!(written, Err(MonitorError::Io { .. })));
    }
}
