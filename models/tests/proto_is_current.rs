//! `src/proto.rs` is what `proto/onnx.proto` generates.
//!
//! It is committed so that a build of the server compiles no protobuf compiler. `make proto` writes it anew.

use std::path::Path;
use std::{env, fs};

#[test]
fn the_committed_messages_are_those_of_the_proto_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let generated = generate(root);
    let committed = root.join("src/proto.rs");
    if env::var_os("DENSECL_WRITE_PROTO").is_some() {
        fs::write(&committed, &generated).expect("a writable working tree");
    }
    assert!(
        generated == fs::read_to_string(committed).expect("a committed file"),
        "src/proto.rs is out of date: run `make proto`"
    );
}

fn generate(root: &Path) -> String {
    let folder = root.join("proto");
    let descriptors = protox::compile([folder.join("onnx.proto")], [folder]).expect("a valid proto file");
    let out = tempfile::tempdir().expect("a folder");
    prost_build::Config::new()
        .out_dir(out.path())
        // Weights are megabytes: decoding from `Bytes` then shares them instead of copying.
        .bytes([".onnx.TensorProto.raw_data"])
        // An attribute is one number, mostly: what it may be instead takes memory only where it is.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .compile_fds(descriptors)
        .expect("generated messages");
    fs::read_to_string(out.path().join("onnx.rs")).expect("the messages of package onnx")
}
