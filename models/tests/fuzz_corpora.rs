//! Every input that fuzzing has kept goes through the checks of its target.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/checks/manifest.rs"]
mod manifest;
#[path = "../fuzz/checks/onnx_model.rs"]
mod onnx_model;

#[test]
fn manifests_pass() {
    replay("manifest", manifest::check);
}

#[test]
fn onnx_models_pass() {
    replay("onnx_model", onnx_model::check);
}

fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("a file");
        catch_unwind(AssertUnwindSafe(|| check(&input))).unwrap_or_else(|_| panic!("fails: {}", path.display()));
        count += 1;
    }
    assert!(count > 0, "{target} has no corpus");
}
