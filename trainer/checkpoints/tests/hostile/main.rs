//! Files that want to run something, take memory, or lead astray: refused, each for its reason.
//!
//! One test, so that what the process takes at most can be put down to these files.

mod archives;
mod forge;
mod pickles;

use std::fs;
use std::path::{Path, PathBuf};

use densecl_checkpoints::{Allow, CheckpointFile, Network};

/// A file and what the error has to say.
pub(crate) struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    reason: &'static str,
}

impl Case {
    pub(crate) fn new(name: &'static str, bytes: Vec<u8>, reason: &'static str) -> Self {
        Self { name, bytes, reason }
    }
}

/// Memory that these files may add to the process: a million opcodes take some tens of bytes each.
const MAX_GROWTH_KIB: u64 = 96 << 10;

/// Goes the way of a conversion; returns the error.
fn refusal(path: &Path) -> String {
    fn chain(error: &dyn std::error::Error) -> String {
        error.source().map_or(error.to_string(), |source| format!("{error}: {}", chain(source)))
    }
    let file = match CheckpointFile::open(path) {
        Ok(file) => file,
        Err(error) => return chain(&error),
    };
    for tensor in file.tensors().iter().take(1000) {
        let _ = file.values(tensor);
    }
    match Network::find(&file) {
        Ok(network) => match network.weights(&Allow::nothing()) {
            Ok(weights) => format!("read: {} weights", weights.len()),
            Err(error) => chain(&error),
        },
        Err(error) => chain(&error),
    }
}

/// The most memory that the process has had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux says");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it counts memory");
    line.trim().trim_end_matches(" kB").parse().expect("in KiB")
}

#[test]
fn hostile_files_are_refused_without_running_anything_or_taking_memory() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("marker");
    let mut cases = pickles::cases(marker.to_str().unwrap());
    cases.extend(archives::cases());
    assert!(cases.len() >= 20, "{}", cases.len());
    let paths: Vec<PathBuf> = (0..cases.len()).map(|i| folder.path().join(i.to_string())).collect();
    for (path, case) in paths.iter().zip(&mut cases) {
        fs::write(path, std::mem::take(&mut case.bytes)).unwrap();
    }
    // What was needed to make the files is not counted.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_kib();
    let mut wrong = Vec::new();
    for (path, Case { name, reason, .. }) in paths.iter().zip(&cases) {
        let error = refusal(path);
        if !error.contains(reason) {
            wrong.push(format!("{name}: {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let growth = peak_kib().saturating_sub(before);
    assert!(growth < MAX_GROWTH_KIB, "the process grew by {growth} KiB");
    assert!(!marker.exists(), "something was run");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints");
    for name in ["tensors-zip.pth", "tensors-legacy.pth", "detectron2-protocol-0.pkl", "detectron2-protocol-4.pkl"] {
        let bytes = fs::read(fixtures.join(name)).unwrap();
        for len in (0..bytes.len()).step_by(37).chain([bytes.len() - 1]) {
            assert!(CheckpointFile::from_bytes(bytes[..len].to_vec()).is_err(), "{name} up to {len}");
        }
    }
}

#[test]
fn a_file_that_is_damaged_anywhere_never_panics() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints");
    for name in ["tensors-zip.pth", "tensors-legacy.pth", "detectron2-protocol-2.pkl"] {
        let bytes = fs::read(fixtures.join(name)).unwrap();
        for at in (0..bytes.len()).step_by(23) {
            let mut damaged = bytes.clone();
            damaged[at] = damaged[at].wrapping_mul(31).wrapping_add(0x55);
            if let Ok(file) = CheckpointFile::from_bytes(damaged) {
                file.tensors().iter().for_each(|tensor| drop(file.values(tensor)));
                let _ = Network::find(&file).map(|network| network.weights(&Allow::nothing()).map(drop));
            }
        }
    }
}
