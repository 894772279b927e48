//! Runs every file of the fuzz corpora through the check of its target.
//!
//! One test in a binary of its own, because the counting allocator serves the whole process.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

#[path = "../fuzz/checks/counting.rs"]
mod counting;
#[path = "../fuzz/checks/image_decode.rs"]
mod image_decode;
#[path = "../fuzz/checks/label_picture.rs"]
mod label_picture;
#[path = "../fuzz/checks/npy_writer.rs"]
mod npy_writer;
#[path = "../fuzz/checks/numbers.rs"]
mod numbers;
#[path = "../fuzz/checks/safetensors_writer.rs"]
mod safetensors_writer;

#[test]
fn the_fuzz_corpora_pass_their_checks() {
    replay("image_decode", |input| image_decode::check(input, &counting::Process));
    replay("label_picture", label_picture::check);
    replay("npy_writer", npy_writer::check);
    replay("safetensors_writer", safetensors_writer::check);
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
