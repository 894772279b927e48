#![no_main]

#[path = "../checks/open_inference_body.rs"]
mod open_inference_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| open_inference_body::check(input));
