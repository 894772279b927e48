//! Every input that fuzzing has kept goes through the checks of its target.

use std::fs;
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
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check(&fs::read(&path).unwrap());
        count += 1;
    }
    assert!(count > 0, "{target} has no corpus");
}
