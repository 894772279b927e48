#![no_main]

#[path = "../checks/numbers.rs"]
mod numbers;
#[path = "../checks/safetensors_writer.rs"]
mod safetensors_writer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| safetensors_writer::check(input));
