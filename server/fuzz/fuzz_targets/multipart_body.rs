#![no_main]

#[path = "../checks/body.rs"]
mod body;
#[path = "../checks/multipart_body.rs"]
mod multipart_body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| multipart_body::check(input));
