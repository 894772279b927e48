//! Generates the ONNX messages from `proto/onnx.proto`, without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/onnx.proto");
    let descriptors = protox::compile(["proto/onnx.proto"], ["proto"])?;
    prost_build::Config::new()
        // Weights are megabytes: decoding from `Bytes` then shares them instead of copying.
        .bytes([".onnx.TensorProto.raw_data"])
        // An attribute is one number, mostly: what it may be instead takes memory only where it is.
        .boxed(".onnx.AttributeProto.t")
        .boxed(".onnx.AttributeProto.g")
        .boxed(".onnx.AttributeProto.tp")
        .boxed(".onnx.AttributeProto.sparse_tensor")
        .compile_fds(descriptors)?;
    Ok(())
}
