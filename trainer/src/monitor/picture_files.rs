//! A run's pictures on disk: `pictures/<name>/step-00000100.png`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::MonitorError;
use densecl_models::atomic_file;

const FOLDER: &str = "pictures";

/// Path of the picture `name` of step `step`.
pub(super) fn path(run: &Path, name: &str, step: u64) -> PathBuf {
    run.join(FOLDER).join(name).join(format!("step-{step:08}.png"))
}

/// Writes an encoded picture.
pub(super) fn write(path: &Path, png: &[u8]) -> Result<(), MonitorError> {
    let folder = path.parent().expect("the path has a name behind a folder");
    fs::create_dir_all(folder).and_then(|()| atomic_file::write(path, png)).map_err(MonitorError::io(path))
}

/// Deletes pictures of steps after the first `taken`.
pub(super) fn cut(run: &Path, taken: u64) -> Result<(), MonitorError> {
    let pictures = list(run).map_err(MonitorError::io(&run.join(FOLDER)))?;
    for (_, path) in pictures.into_values().flatten().filter(|(step, _)| *step > taken) {
        fs::remove_file(&path).map_err(MonitorError::io(&path))?;
    }
    Ok(())
}

/// A run's pictures: for every name the steps, ascending, with their files.
///
/// # Errors
/// If there is a folder of pictures that cannot be read.
pub(crate) fn list(run: &Path) -> io::Result<BTreeMap<String, Vec<(u64, PathBuf)>>> {
    let mut pictures = BTreeMap::new();
    for folder in entries(&run.join(FOLDER))?.into_iter().filter(|path| path.is_dir()) {
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        let mut steps: Vec<_> =
            entries(&folder)?.into_iter().filter_map(|path| Some((step_of(&path)?, path))).collect();
        steps.sort_unstable();
        if !steps.is_empty() {
            pictures.insert(name.to_owned(), steps);
        }
    }
    Ok(pictures)
}

/// The step of a file named by [`path`].
fn step_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok()
}

/// The entries of a folder; none if it does not exist.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        found => found?.map(|entry| entry.map(|entry| entry.path())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_listed_in_order_and_cut_at_a_step() {
        let run = tempfile::tempdir().unwrap();
        for step in [100, 4, 20] {
            write(&path(run.path(), "matches", step), b"png").unwrap();
        }
        fs::write(run.path().join("pictures/matches/notes.txt"), "mine").unwrap();
        let steps = |run: &Path| list(run).unwrap()["matches"].iter().map(|(step, _)| *step).collect::<Vec<_>>();
        assert_eq!(steps(run.path()), [4, 20, 100]);
        cut(run.path(), 20).unwrap();
        assert_eq!(steps(run.path()), [4, 20]);
        assert!(run.path().join("pictures/matches/notes.txt").exists(), "what is not a picture stays");
    }

    #[test]
    fn a_run_without_pictures_has_none() {
        assert!(list(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
    }
}
