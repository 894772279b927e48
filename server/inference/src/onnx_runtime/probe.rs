//! The smallest possible model, which shows at the start whether a device works.
//!
//! ONNX Runtime accepts a provider whose library loads. A missing device shows only when a model runs.

use densecl_models::graph::{Attribute, Axis, GraphBuilder};
use densecl_models::proto::tensor_proto::DataType;
use densecl_models::{Layer, Manifest, ModelError, OnnxModel};

/// The image that it runs on: one pixel.
pub(super) const PIXEL: &[u8] = &[1, 2, 3];
/// Name of its only output.
const OUTPUT: &str = "probe";

/// The file of a model that converts its pixels to floats.
pub(crate) fn model() -> Result<Vec<u8>, ModelError> {
    model_with_method(OUTPUT)
}

/// Like [`model`], with a text in its manifest that gives it another digest.
pub(crate) fn model_with_method(method: &str) -> Result<Vec<u8>, ModelError> {
    let axes = [Axis::Named("N"), Axis::Named("H"), Axis::Named("W"), Axis::Fixed(3)];
    let mut graph = GraphBuilder::new(OUTPUT);
    let images = graph.input("images", DataType::Uint8, &axes);
    graph.node("Cast", &[&images], OUTPUT, &[("to", Attribute::Int(DataType::Float as i64))]);
    graph.output(OUTPUT, &axes);
    let manifest = Manifest {
        name: OUTPUT.to_owned(),
        version: 1,
        method: method.to_owned(),
        architecture: OUTPUT.to_owned(),
        layers: vec![Layer { name: OUTPUT.to_owned(), channels: 3, stride: 1 }],
        global: None,
        default_layer: OUTPUT.to_owned(),
        default_side: 32,
        mean: [0.0; 3],
        std: [1.0; 3],
        training: None,
        fidelity: None,
        licence: "Apache-2.0".to_owned(),
    };
    OnnxModel::new(graph.finish(), manifest)?.encode()
}
