#![no_main]

#[path = "../checks/body.rs"]
mod body;
#[path = "../checks/json_body.rs"]
mod json_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| json_body::check(input));
