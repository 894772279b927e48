#![no_main]

#[path = "../checks/label_picture.rs"]
mod label_picture;

libfuzzer_sys::fuzz_target!(|input: &[u8]| label_picture::check(input));
