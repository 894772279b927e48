#![no_main]

#[path = "../checks/onnx_model.rs"]
mod onnx_model;

libfuzzer_sys::fuzz_target!(|input: &[u8]| onnx_model::check(input));
