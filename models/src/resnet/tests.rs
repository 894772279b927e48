use super::*;
use crate::manifest::tests::manifest;
use crate::proto::ValueInfoProto;
use crate::{Manifest, ModelError, OnnxModel, Precision, int8};

/// Weights of a small network, different in every element.
fn weights(architecture: Architecture, stem_width: usize) -> Weights {
    let mut weights = Weights::new();
    let mut put = |name: String, dims: Vec<usize>| {
        let data = (0..dims.iter().product()).map(|i: usize| ((i * 37 % 101) as f32 - 50.0) / 200.0 + 0.3).collect();
        weights.insert(name, Weight { dims, data });
    };
    let mut conv = |conv: String, norm: String, out: usize, inp: usize, k: usize| {
        put(format!("{conv}.weight"), vec![out, inp, k, k]);
        for part in ["weight", "bias", "running_mean", "running_var"] {
            put(format!("{norm}.{part}"), vec![out]);
        }
    };
    conv("conv1".into(), "bn1".into(), stem_width, 3, 7);
    let mut channels = stem_width;
    for (stage, depth) in architecture.depths().into_iter().enumerate() {
        let (width, out) = (stem_width << stage, architecture.channels(stage, stem_width));
        for block in 0..depth {
            let name = format!("layer{}.{block}", stage + 1);
            let shapes: &[(usize, usize, usize)] = if architecture.expansion() == 1 {
                &[(width, channels, 3), (width, width, 3)]
            } else {
                &[(width, channels, 1), (width, width, 3), (out, width, 1)]
            };
            for (i, &(out, inp, k)) in shapes.iter().enumerate() {
                conv(format!("{name}.conv{}", i + 1), format!("{name}.bn{}", i + 1), out, inp, k);
            }
            if block == 0 && channels != out {
                conv(format!("{name}.downsample.0"), format!("{name}.downsample.1"), out, channels, 1);
            }
            channels = out;
        }
    }
    for (head, tail) in [("global_head", &[][..]), ("dense_head", &[1, 1][..])] {
        for (part, out) in [(0, channels), (2, 16)] {
            put(format!("{head}.{part}.weight"), [&[out, channels], tail].concat());
            put(format!("{head}.{part}.bias"), vec![out]);
        }
    }
    weights
}

fn spec(architecture: Architecture, storage: WeightStorage) -> GraphSpec {
    GraphSpec { architecture, output_stride: OutputStride::Stride32, mean: [0.5; 3], std: [0.25; 3], storage }
}

fn model() -> OnnxModel {
    let spec = spec(Architecture::ResNet18, WeightStorage::Float16);
    let built = build(&spec, &weights(Architecture::ResNet18, 4)).unwrap();
    let manifest = Manifest { layers: built.layers, global: built.global, ..manifest() };
    OnnxModel::new(built.graph, manifest).unwrap()
}

#[test]
fn every_architecture_has_its_layers() {
    for architecture in Architecture::ALL {
        let spec = spec(architecture, WeightStorage::Float32);
        let built = build(&spec, &weights(architecture, 2)).unwrap();
        let layers: Vec<_> = built.layers.iter().map(|l| (l.name.as_str(), l.stride)).collect();
        assert_eq!(layers, [("res2", 4), ("res3", 8), ("res4", 16), ("res5", 32), ("dense", 32)]);
        let expected: Vec<_> = (0..4).map(|stage| architecture.channels(stage, 2) as u32).chain([16]).collect();
        assert_eq!(built.layers.iter().map(|l| l.channels).collect::<Vec<_>>(), expected);
        assert_eq!(built.global, Some(16));
    }
}

#[test]
fn dilation_refines_the_last_layers_and_the_head() {
    let strides = |output_stride| {
        let spec = GraphSpec { output_stride, ..spec(Architecture::ResNet50, WeightStorage::Float32) };
        let built = build(&spec, &weights(Architecture::ResNet50, 2)).unwrap();
        built.layers.iter().map(|layer| layer.stride).collect::<Vec<_>>()
    };
    assert_eq!(strides(OutputStride::Stride16), [4, 8, 16, 16, 16]);
    assert_eq!(strides(OutputStride::Stride8), [4, 8, 8, 8, 8]);
}

#[test]
fn outputs_can_be_chosen() {
    let built = || {
        let spec = spec(Architecture::ResNet18, WeightStorage::Float32);
        build(&spec, &weights(Architecture::ResNet18, 4)).unwrap()
    };
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    let kept = built().keep(&names(&["global", "res4", "res3"])).unwrap();
    assert_eq!(kept.outputs(), ["res3", "res4", "global"]);
    assert_eq!(kept.graph.output.iter().map(ValueInfoProto::name).collect::<Vec<_>>(), kept.outputs());
    let kept = built().keep(&names(&["res3"])).unwrap();
    assert_eq!(kept.global, None);
    assert!(kept.graph.node.iter().all(|node| !node.output[0].starts_with("layer3")));
    let error = built().keep(&names(&["res3", "res6"])).unwrap_err().to_string();
    assert_eq!(error, "the network has no output `res6`; it has res2, res3, res4, res5, dense, global");
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny/1/model.onnx");
    let model = model();
    model.save(&path).unwrap();
    let read = OnnxModel::open(&path).unwrap();
    assert_eq!(read.manifest(), model.manifest());
    assert_eq!(read.encode().unwrap(), model.encode().unwrap());
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
}

#[test]
fn a_file_that_is_not_approved_of_does_not_appear() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let refused = |aside: &std::path::Path| {
        assert_eq!(std::fs::read(aside).unwrap(), model().encode().unwrap());
        Err(ModelError::NoManifest)
    };
    assert!(matches!(model().save_if(&path, refused), Err(ModelError::NoManifest)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_quantised_model_is_cut_like_any_other_and_stays_one_in_float16() {
    let spec = spec(Architecture::ResNet18, WeightStorage::Float32);
    let built = build(&spec, &weights(Architecture::ResNet18, 4)).unwrap();
    let range = int8::ValueRange { low: -1.0, high: 1.0 };
    let ranges =
        int8::CalibrationModel::new(&built.graph).unwrap().values.into_iter().map(|name| (name, range)).collect();
    let graph = int8::quantize(&built.graph, &ranges).unwrap();
    let manifest = Manifest { layers: built.layers, global: built.global, ..manifest() };
    let model = OnnxModel::new(graph, manifest).unwrap();
    for outputs in [&["res2"][..], &["dense"], &["res3", "global"]] {
        let cut = model.cut(outputs, Precision::Float32).unwrap();
        assert_eq!(model.cut(outputs, Precision::Float16).unwrap(), cut);
        let proto: crate::proto::ModelProto = prost::Message::decode(cut.as_slice()).unwrap();
        let graph = proto.graph.unwrap();
        let floats = graph.initializer.iter().filter(|tensor| tensor.name().ends_with(".weight"));
        // The stages compute in integers, their projections to outputs do not.
        assert!(floats.map(|tensor| tensor.name().to_owned()).all(|name| name.contains("head")));
    }
}

#[test]
fn a_cut_holds_what_its_layers_need_and_no_more() {
    let model = model();
    let nodes = |outputs: &[&str]| {
        let bytes = model.cut(outputs, Precision::Float32).unwrap();
        let proto: crate::proto::ModelProto = prost::Message::decode(bytes.as_slice()).unwrap();
        let graph = proto.graph.unwrap();
        assert_eq!(graph.output.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>(), outputs);
        assert_eq!(graph.input.len(), 1);
        let names: Vec<_> = graph.node.iter().map(|n| n.output[0].clone()).collect();
        for node in &graph.node {
            for input in &node.input {
                let known = names.contains(input)
                    || graph.initializer.iter().any(|t| t.name() == input)
                    || graph.input[0].name() == input;
                assert!(known, "{input} is dangling");
            }
        }
        names
    };
    let res2 = nodes(&["res2"]);
    assert!(res2.iter().all(|name| !name.starts_with("layer2") && !name.contains("head")));
    let both = nodes(&["res4", "res2"]);
    assert!(both.len() > res2.len() && both.contains(&"res2".to_owned()));
    assert!(!nodes(&["dense"]).iter().any(|name| name.contains("global_head")));
    assert!(matches!(model.cut(&["res9"], Precision::Float32), Err(ModelError::UnknownOutput(name)) if name == "res9"));
}

#[test]
fn folding_leaves_the_sum_of_convolution_and_norm_unchanged() {
    let weights = weights(Architecture::ResNet18, 4);
    let net = Network {
        weights: &weights,
        storage: WeightStorage::Float32,
        builder: GraphBuilder::new("test"),
        layers: Vec::new(),
    };
    let (folded, bias) = net.folded("conv1", "bn1").unwrap();
    let (value, channel) = (0.7_f32, 2);
    let part = |name: &str| weights[&format!("bn1.{name}")].data[channel];
    let at = channel * 3 * 49 + 5;
    let convolved = weights["conv1.weight"].data[at] * value;
    let expected =
        (convolved - part("running_mean")) / (part("running_var") + 1e-5).sqrt() * part("weight") + part("bias");
    assert!((folded.data[at] * value + bias.data[channel] - expected).abs() < 1e-5);
}

#[test]
fn what_does_not_fit_is_named() {
    let spec = spec(Architecture::ResNet18, WeightStorage::Float16);
    let error = |damage: fn(&mut Weights)| {
        let mut weights = weights(Architecture::ResNet18, 4);
        damage(&mut weights);
        build(&spec, &weights).unwrap_err().to_string()
    };
    assert!(error(|w| drop(w.remove("layer3.1.conv2.weight"))).contains("layer3.1.conv2.weight"));
    assert!(error(|w| w.get_mut("bn1.bias").unwrap().data.truncate(1)).contains("bn1.bias"));
    assert!(error(|w| w.get_mut("dense_head.0.weight").unwrap().data[3] = 1e6).contains("dense_head.0.weight"));
    assert!(error(|w| w.get_mut("dense_head.0.bias").unwrap().data[3] = f32::NAN).contains("dense_head.0.bias"));
}

#[test]
fn files_that_are_not_models_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::write(&path, b"text, not a model").unwrap();
    assert!(matches!(OnnxModel::open(&path), Err(ModelError::NotOnnx(_) | ModelError::NoManifest)));
    let bytes = model().encode().unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(matches!(OnnxModel::open(&path), Err(ModelError::NotOnnx(_))));
    assert!(matches!(OnnxModel::open(&folder.path().join("gone")), Err(ModelError::Io { .. })));
}
