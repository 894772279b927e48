//! Reports: runs compared on one HTML page that needs no other file.
//!
//! Reads the files of [`crate::monitor`] and each run's `config.toml`; runs may still be training.
//! All text of a run is escaped, and the page's policy forbids to load anything.

mod configuration;
mod figures;
mod page;
mod run_record;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use densecl_models::atomic_file;

use run_record::RunRecord;

/// A report that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A folder that is not a run's, or of a run that has not reported yet.
    #[error("{} holds no run to report on: looked for lines of metrics in {}", run.display(), metrics.display())]
    NoMetrics {
        /// The folder.
        run: PathBuf,
        /// The file that is not there, or empty.
        metrics: PathBuf,
    },
    /// The operating system refused to let a file be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        source: io::Error,
    },
    /// The page could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The page.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// Writes a report on the runs in the folders `runs` to `out`; returns its size in bytes.
///
/// # Errors
/// If a folder holds no run, or a file cannot be read or written.
pub fn report(runs: &[PathBuf], out: &Path) -> Result<usize, ReportError> {
    let mut records = runs.iter().map(|run| RunRecord::read(run)).collect::<Result<Vec<_>, _>>()?;
    run_record::tell_apart(&mut records);
    let page = page::render(&records);
    atomic_file::write(out, page.as_bytes()).map_err(|source| ReportError::Write { path: out.to_owned(), source })?;
    Ok(page.len())
}
