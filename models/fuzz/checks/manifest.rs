//! A manifest is refused, or stays the same when it is written and read again.

use densecl_models::Manifest;

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let Ok(json) = std::str::from_utf8(input) else { return };
    match Manifest::from_json(json) {
        Ok(manifest) => {
            manifest.check().expect("what is read is valid");
            let written = serde_json::to_string(&manifest).expect("strings and finite numbers");
            assert_eq!(Manifest::from_json(&written).expect("what was written is read"), manifest);
        }
        Err(error) => assert!(error.to_string().len() < 3000, "a message is a few lines: {error}"),
    }
}
