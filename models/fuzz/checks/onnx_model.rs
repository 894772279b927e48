//! A model file is refused, or can be cut at every layer, and its cuts are models again.

use bytes::Bytes;
use densecl_models::int8::{CalibrationModel, ValueRange, quantize};
use densecl_models::proto::{GraphProto, ModelProto};
use densecl_models::{Layer, Manifest, OnnxModel, Precision};
use prost::Message as _;

/// Layers that are cut; more of them run no other code.
const MAX_LAYERS: usize = 4;

/// Runs one input.
pub(crate) fn check(input: &[u8]) {
    let model = match OnnxModel::decode(Bytes::copy_from_slice(input), || Ok(Some(manifest()))) {
        Ok(model) => model,
        Err(error) => {
            assert!(error.to_string().len() < 4000, "a message is a few lines: {error}");
            return;
        }
    };
    let written = model.encode().expect("a manifest is always written");
    let read = OnnxModel::decode(written.into(), || Ok(None)).expect("what was written is read");
    assert_eq!(read.manifest(), model.manifest());
    for layer in model.manifest().layers.iter().take(MAX_LAYERS) {
        for precision in [Precision::Float32, Precision::Float16] {
            if let Some(graph) = check_cut(&model, layer, precision) {
                quantized(&graph);
            }
        }
    }
}

/// The part of a model that computes `layer`, which is a model by itself.
fn check_cut(model: &OnnxModel, layer: &Layer, precision: Precision) -> Option<GraphProto> {
    let cut = match (model.cut(&[&layer.name], precision), precision) {
        (Ok(cut), _) => Bytes::from(cut),
        (Err(_), Precision::Float16) => return None,
        (Err(error), Precision::Float32) => panic!("{error}"),
    };
    let manifest = Manifest {
        layers: vec![layer.clone()],
        default_layer: layer.name.clone(),
        global: None,
        ..model.manifest().clone()
    };
    let read = OnnxModel::decode(cut.clone(), || Ok(Some(manifest))).expect("a cut is a model");
    assert_eq!(read.outputs().collect::<Vec<_>>(), [&layer.name]);
    ModelProto::decode(cut).expect("it was just read").graph
}

/// Quantises the graph if that is possible; checks that it ends.
fn quantized(graph: &GraphProto) {
    let Ok(calibration) = CalibrationModel::new(graph) else { return };
    let range = ValueRange { low: -1.0, high: 1.0 };
    let ranges = calibration.values.into_iter().map(|value| (value, range)).collect();
    let _ = quantize(graph, &ranges);
}

/// Manifest for files that have none.
fn manifest() -> Manifest {
    Manifest {
        name: "tiny".to_owned(),
        version: 1,
        method: "random".to_owned(),
        architecture: "tiny".to_owned(),
        layers: [("a", 4), ("b", 4)]
            .map(|(name, channels)| Layer { name: name.to_owned(), channels, stride: 1 })
            .to_vec(),
        global: None,
        default_layer: "b".to_owned(),
        default_side: 32,
        mean: [0.0; 3],
        std: [1.0; 3],
        training: None,
        fidelity: None,
        licence: "Apache-2.0".to_owned(),
    }
}
