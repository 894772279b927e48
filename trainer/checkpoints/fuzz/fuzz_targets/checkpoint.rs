//! Any bytes: opened, described and read as a checkpoint. Whatever they are, there is an answer
//! or an error; no panic, no overflow, and no more memory than libFuzzer's limit allows.

#![no_main]

use densecl_checkpoints::{Allow, CheckpointFile, Network};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = CheckpointFile::from_bytes(bytes.to_vec()) else { return };
    // A hundred tensors show as much as a hundred thousand.
    for tensor in file.tensors().iter().take(100) {
        let _ = file.values(tensor);
    }
    if let Ok(network) = Network::find(&file) {
        let _ = network.weights(&Allow::nothing());
        let _ = network.weights(&Allow::patterns(["*".to_owned()]));
    }
});
