//! The trainer replays recorded training steps: every loss, match, weight, buffer and queue.

use std::path::{Path, PathBuf};

use densecl_trainer::golden::{Comparison, replay};
use densecl_trainer::tensor_file::TensorFile;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn replayed(input: &Path) -> Comparison {
    let folder = tempfile::tempdir().expect("a temporary folder");
    replay(input, &folder.path().join("out.safetensors")).expect("a golden file")
}

fn assert_replayed(name: &str, tensors: usize) {
    let found = replayed(&golden(name));
    assert_eq!(found.compared, tensors);
    assert!(found.relative_error <= 1e-9, "{} differs by {:e}", found.worst, found.relative_error);
}

#[test]
fn densecl_on_resnet18() {
    assert_replayed("golden-densecl.safetensors", 227);
}

#[test]
fn densecl_on_resnet50() {
    assert_replayed("golden-densecl-resnet50.safetensors", 557);
}

#[test]
fn moco_v2_with_split_batch_norm() {
    assert_replayed("golden-moco-v2-split-bn.safetensors", 214);
}

/// The comparison sees a loss that is off in its tenth digit, and a tensor that is not replayed.
#[test]
fn a_departure_is_noticed() {
    let mut file = TensorFile::read(&golden("golden-moco-v2-split-bn.safetensors")).expect("a golden file");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let altered = folder.path().join("altered.safetensors");
    let loss = file.tensors["step1/loss"].shallow_clone();
    file.tensors.insert("step1/loss".to_owned(), loss * (1.0 + 1e-8));
    file.write(&altered).expect("written");
    let found = replayed(&altered);
    assert_eq!(found.worst, "step1/loss");
    assert!(found.relative_error > 1e-9);

    let loss = file.tensors["step1/loss"].shallow_clone();
    file.tensors.insert("step9/loss".to_owned(), loss);
    file.write(&altered).expect("written");
    assert!(replayed(&altered).relative_error.is_infinite());
}
