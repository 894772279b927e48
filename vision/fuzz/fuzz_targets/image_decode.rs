#![no_main]

#[path = "../checks/counting.rs"]
mod counting;
#[path = "../checks/image_decode.rs"]
mod image_decode;

libfuzzer_sys::fuzz_target!(|input: &[u8]| image_decode::check(input, &counting::Process));
