//! Every input that fuzzing has kept goes through the checks of its target.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/checks/body.rs"]
mod body;
#[path = "../fuzz/checks/json_body.rs"]
mod json_body;
#[path = "../fuzz/checks/multipart_body.rs"]
mod multipart_body;
#[path = "../fuzz/checks/open_inference_body.rs"]
mod open_inference_body;

#[test]
fn the_corpora_of_the_fuzz_targets_pass() {
    replay("json_body", json_body::check);
    replay("multipart_body", multipart_body::check);
    replay("open_inference_body", open_inference_body::check);
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
