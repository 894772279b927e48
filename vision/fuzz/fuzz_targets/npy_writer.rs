#![no_main]

#[path = "../checks/numbers.rs"]
mod numbers;
#[path = "../checks/npy_writer.rs"]
mod npy_writer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| npy_writer::check(input));
