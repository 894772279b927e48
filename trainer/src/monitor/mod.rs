//! Output of a run during training: `metrics.jsonl`, TensorBoard's event files, pictures, and progress
//! on the terminal.
//!
//! The training loop measures; this module writes and draws, and does not change the model. Files in a
//! run's folder:
//!
//! ```text
//! metrics.jsonl                            a line a report
//! events.out.tfevents.<seconds>.densecl    the same and the pictures, for TensorBoard
//! pictures/<name>/step-00000100.png        the pictures, for people and `report`
//! ```
//!
//! Invariant: a run's files hold each step once, however often it was killed and resumed.

mod error;
mod event_messages;
mod events;
mod memory;
mod metrics;
pub(crate) mod metrics_file;
pub(crate) mod picture_files;
pub mod pictures;
mod progress;

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::time::Instant;

use image::{ImageFormat, RgbImage};

pub use error::MonitorError;
pub use memory::peak_memory_bytes;
pub use metrics::Metrics;
pub use progress::{LogWriter, ProgressStyle};

use events::{EncodedPicture, EventFile};
use metrics_file::MetricsFile;
use progress::Progress;

/// Writes the output of one run, or of the part of it that this process trains.
#[derive(Debug)]
pub struct Monitor {
    run: PathBuf,
    metrics: MetricsFile,
    events: EventFile,
    progress: Progress,
    opened: Instant,
}

impl Monitor {
    /// Opens the output of the run in the folder `run`, which exists.
    ///
    /// `first_step` is the first step that will be taken, counted from 0, and so the number of
    /// steps in the checkpoint that the run goes on from. What an earlier process reported of
    /// later steps is removed: they will be taken again.
    ///
    /// # Errors
    /// If a file of the run cannot be written.
    pub fn open(run: &Path, first_step: u64, total_steps: u64, style: ProgressStyle) -> Result<Self, MonitorError> {
        let metrics = MetricsFile::open(run, first_step)?;
        picture_files::cut(run, first_step)?;
        let events = EventFile::create(run, first_step)?;
        let progress = Progress::start(first_step, total_steps, style);
        Ok(Self { run: run.to_owned(), metrics, events, progress, opened: Instant::now() })
    }

    /// Wall time of the run in seconds, over all of its parts: for [`Metrics::seconds`].
    pub fn seconds(&self) -> f64 {
        self.metrics.seconds() + self.opened.elapsed().as_secs_f64()
    }

    /// Writes and shows a report.
    ///
    /// # Errors
    /// If a file cannot be written, because the disk is full for example.
    pub fn record(&mut self, metrics: &Metrics) -> Result<(), MonitorError> {
        self.metrics.write(metrics)?;
        self.events.scalars(metrics.step, &metrics.scalars())?;
        self.progress.show(metrics);
        Ok(())
    }

    /// Keeps a picture of the state after `step` steps. Pictures of one `name`, which becomes the
    /// name of a folder, are seen side by side over time.
    ///
    /// # Errors
    /// If it cannot be encoded, or a file cannot be written.
    pub fn picture(&mut self, name: &str, step: u64, picture: &RgbImage) -> Result<(), MonitorError> {
        let path = picture_files::path(&self.run, name, step);
        let mut png = Cursor::new(Vec::new());
        let encoded = picture.write_to(&mut png, ImageFormat::Png);
        encoded.map_err(|source| MonitorError::Picture { path: path.clone(), source })?;
        let png = png.into_inner();
        picture_files::write(&path, &png)?;
        let picture = EncodedPicture { width: picture.width(), height: picture.height(), png };
        self.events.picture(step, format!("pictures/{name}"), picture)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_run_writes_metrics_events_and_pictures() {
        let run = tempfile::tempdir().unwrap();
        let mut monitor = Monitor::open(run.path(), 0, 8, ProgressStyle::Lines).unwrap();
        monitor.record(&Metrics::sample(4)).unwrap();
        monitor.picture("matches", 4, &RgbImage::new(3, 2)).unwrap();
        let entries = fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert!(names[0].starts_with("events.out.tfevents."), "{names:?}");
        assert_eq!(names[1..], ["metrics.jsonl", "pictures"]);
        let picture = image::open(run.path().join("pictures/matches/step-00000004.png")).unwrap();
        assert_eq!((picture.width(), picture.height()), (3, 2));
    }

    #[test]
    fn a_resumed_run_adds_to_the_time() {
        let run = tempfile::tempdir().unwrap();
        let mut monitor = Monitor::open(run.path(), 0, 8, ProgressStyle::Lines).unwrap();
        monitor.record(&Metrics { seconds: 100.0, ..Metrics::sample(4) }).unwrap();
        monitor.record(&Metrics { seconds: 200.0, ..Metrics::sample(8) }).unwrap();
        drop(monitor);
        let seconds = Monitor::open(run.path(), 4, 8, ProgressStyle::Lines).unwrap().seconds();
        assert!((100.0..150.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn a_missing_folder_is_an_error() {
        let run = tempfile::tempdir().unwrap();
        let opened = Monitor::open(&run.path().join("none"), 0, 8, ProgressStyle::Lines);
        assert!(matches!(opened, Err(MonitorError::Io { .. })));
    }
}
