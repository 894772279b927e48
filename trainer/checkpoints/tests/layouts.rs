//! Every layout as the real tools write it (`tests/checkpoints/make.py`), and what is written here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use densecl_checkpoints::{
    Allow, CheckpointFile, CheckpointLayout, Format, Network, Role, Target, WeightsError, write,
};
use densecl_models::resnet::{Architecture, Weights};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoints").join(name)
}

/// Values that `make.py` fills a tensor with.
fn values(name: &str, count: usize) -> Vec<f32> {
    let start: usize = name.bytes().map(usize::from).sum::<usize>() * 31;
    (0..count).map(|i| ((start + i * 7) % 256) as f32 / 128.0 - 1.0).collect()
}

fn read(path: &Path) -> (Weights, CheckpointLayout, String) {
    let file = CheckpointFile::open(path).expect("the file is read");
    let network = Network::find(&file).expect("it has a network");
    assert!(network.problems.is_empty(), "{}: {}", path.display(), network.problems);
    let weights = network.weights(&Allow::nothing()).expect("it is whole");
    (weights, network.layout, network.method().to_owned())
}

fn assert_whole(weights: &Weights, heads: &[&str]) {
    for (name, weight) in weights {
        assert_eq!(weight.data.len(), weight.dims.iter().product::<usize>(), "{name}");
        assert_eq!(weight.data, values(name, weight.data.len()), "{name}");
    }
    let of_heads = weights.keys().filter(|name| heads.iter().any(|head| name.starts_with(head))).count();
    assert_eq!(of_heads, 4 * heads.len());
    assert_eq!(weights.len(), 100 + of_heads, "a whole ResNet-18");
    if heads.contains(&"dense_head") {
        assert_eq!(weights["dense_head.2.weight"].dims, [4, 8, 1, 1]);
    }
}

#[test]
fn every_layout_is_read_whole() {
    let both = ["global_head", "dense_head"].as_slice();
    for (name, format, layout, method, heads) in [
        ("densecl-training.pth", Format::TorchZip, CheckpointLayout::OpenSelfSup, "densecl", both),
        ("densecl-released.pth", Format::TorchLegacy, CheckpointLayout::Torchvision, "unknown", &[]),
        ("moco-v2.pth.tar", Format::TorchLegacy, CheckpointLayout::Moco, "moco-v2", &["global_head"]),
        ("mmselfsup.pth", Format::TorchZip, CheckpointLayout::Mmpretrain, "densecl", both),
        ("pixpro.pth", Format::TorchLegacy, CheckpointLayout::PixPro, "unknown", &[]),
        ("torchvision.pth", Format::TorchZip, CheckpointLayout::Torchvision, "unknown", &[]),
        ("detectron2-protocol-0.pkl", Format::Pickle, CheckpointLayout::Detectron2, "unknown", &[]),
        ("detectron2-protocol-2.pkl", Format::Pickle, CheckpointLayout::Detectron2, "unknown", &[]),
        ("detectron2-protocol-4.pkl", Format::Pickle, CheckpointLayout::Detectron2, "unknown", &[]),
        ("detectron2-protocol-5.pkl", Format::Pickle, CheckpointLayout::Detectron2, "unknown", &[]),
    ] {
        let path = fixture(name);
        assert_eq!(CheckpointFile::open(&path).unwrap().format(), format, "{name}");
        let (weights, found, found_method) = read(&path);
        assert_eq!((found, found_method.as_str()), (layout, method), "{name}");
        assert_whole(&weights, heads);
    }
}

#[test]
fn the_query_encoder_is_taken_and_the_rest_is_told() {
    let file = CheckpointFile::open(&fixture("densecl-training.pth")).unwrap();
    let network = Network::find(&file).unwrap();
    assert_eq!((network.role, network.architecture, network.stem_width), (Role::Query, Architecture::ResNet18, 1));
    assert_eq!(network.origin, "state_dict: encoder_q.0.*");
    for name in ["encoder_k.0.conv1.weight", "backbone.conv1.weight", "queue", "optimizer", "meta"] {
        assert!(network.left_aside.iter().any(|found| found == name), "{name}");
    }
}

#[test]
fn every_layout_that_is_written_is_read_again_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (weights, ..) = read(&fixture("mmselfsup.pth"));
    let metadata = BTreeMap::from([("densecl.method".to_owned(), "densecl".to_owned())]);
    for (name, target, layout) in [
        ("a.safetensors", Target::Densecl, CheckpointLayout::Densecl),
        ("a.pth", Target::Torchvision, CheckpointLayout::Torchvision),
        ("bare.safetensors", Target::Torchvision, CheckpointLayout::Densecl),
        ("a.pkl", Target::Detectron2, CheckpointLayout::Detectron2),
        ("mm.pth", Target::Mmpretrain, CheckpointLayout::Mmpretrain),
    ] {
        let path = folder.path().join(name);
        let left_aside = write(&path, target, &weights, &metadata).unwrap();
        assert_eq!(left_aside.len(), if target.has_heads() { 0 } else { 8 }, "{name}");
        let (again, found, _) = read(&path);
        assert_eq!(found, layout, "{name}");
        let expected = weights.iter().filter(|(name, _)| !left_aside.contains(name));
        assert!(again.iter().eq(expected), "{name}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 5, "nothing is left aside");
}

#[test]
fn what_does_not_fit_is_listed_in_full_and_can_be_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let (mut weights, ..) = read(&fixture("torchvision.pth"));
    weights.remove("bn1.bias");
    weights.remove("layer4.1.conv2.weight");
    weights.get_mut("layer1.0.bn1.weight").unwrap().dims = vec![1, 1];
    for name in ["layer1.0.se.weight", "head.weight"] {
        let extra = weights["conv1.weight"].clone();
        weights.insert(name.to_owned(), extra);
    }
    write(&path, Target::Densecl, &weights, &BTreeMap::new()).unwrap();

    let file = CheckpointFile::open(&path).unwrap();
    let network = Network::find(&file).unwrap();
    let Err(WeightsError::Problems { problems, .. }) = network.weights(&Allow::nothing()) else { panic!("refused") };
    assert_eq!(problems.missing, ["bn1.bias", "layer4.1.conv2.weight"]);
    assert_eq!(problems.unexpected, ["layer1.0.se.weight"]);
    assert_eq!(network.left_aside, ["head.weight"]);
    assert_eq!(problems.mismatched, [("layer1.0.bn1.weight".to_owned(), "[1, 1], expected [1]".to_owned())]);
    let text = network.weights(&Allow::nothing()).unwrap_err().to_string();
    for name in ["bn1.bias", "layer4.1.conv2.weight", "layer1.0.se.weight", "layer1.0.bn1.weight", "SE-ResNet"] {
        assert!(text.contains(name), "{text}");
    }
    assert!(!text.contains("--"), "a command may not have the flag: {text}");

    let some = Allow::patterns(["layer1.0.se.*".to_owned(), "bn1.*".to_owned()]);
    assert!(network.weights(&some).is_err(), "two are not allowed");
    let all = Allow::patterns(["layer1.0.se.*".to_owned(), "*bn1.*".to_owned(), "layer4.1.conv2.weight".to_owned()]);
    let read = network.weights(&all).unwrap();
    assert!(!read.contains_key("layer1.0.bn1.weight") && !read.contains_key("layer1.0.se.weight"));
}

#[test]
fn files_without_a_network_or_with_several_say_so() {
    let file = CheckpointFile::open(&fixture("tensors-zip.pth")).unwrap();
    let error = Network::find(&file).unwrap_err().to_string();
    assert!(error.contains("no ResNet") && error.contains("float32"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.safetensors");
    let (weights, ..) = read(&fixture("torchvision.pth"));
    let of = |prefix: &str| weights.iter().map(|(name, w)| (format!("{prefix}{name}"), w.clone())).collect::<Vec<_>>();
    let two: Weights = of("left.").into_iter().chain(of("right.")).collect();
    write(&path, Target::Densecl, &two, &BTreeMap::new()).unwrap();
    let error = Network::find(&CheckpointFile::open(&path).unwrap()).unwrap_err().to_string();
    assert!(error.contains("`left`") && error.contains("`right`"), "{error}");
    let file = CheckpointFile::open(&path).unwrap();
    assert_eq!(Network::find_called(&file, "right").unwrap().origin, "right.*");
    let error = Network::find_called(&file, "middle").unwrap_err().to_string();
    assert!(error.contains("no network `middle`") && error.contains("`left`, `right`"), "{error}");

    write(&path, Target::Densecl, &of("left.").into_iter().collect(), &BTreeMap::new()).unwrap();
    assert_eq!(read(&path).1, CheckpointLayout::Prefixed);
}

/// The weights that `make.py` gives to averaged networks.
fn assert_averaged(weights: &Weights) {
    for (name, weight) in weights {
        let expected: Vec<f32> = values(name, weight.data.len()).iter().map(|value| value + 1.0).collect();
        assert_eq!(weight.data, expected, "{name}");
    }
}

#[test]
fn heads_settings_and_callbacks_beside_a_whole_backbone_are_left_aside_by_name() {
    let path = fixture("lightning.ckpt");
    let (weights, layout, _) = read(&path);
    assert_eq!(layout, CheckpointLayout::Mmpretrain);
    assert_whole(&weights, &[]);
    let file = CheckpointFile::open(&path).unwrap();
    let network = Network::find(&file).unwrap();
    let summary = network.left_aside_summary();
    for part in
        ["projection_head.* (2)", "online_classifier.*", "backbone_momentum.* (2)", "hyper_parameters", "callbacks"]
    {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    let foreign: Vec<_> = file.foreign_classes().collect();
    for class in ["omegaconf.dictconfig.DictConfig", "project.models.Note", "functools.partial", "argparse.Namespace"] {
        assert!(foreign.contains(&class), "{class}: {foreign:?}");
    }
    assert_eq!(
        network.others.iter().map(|other| other.name.as_str()).collect::<Vec<_>>(),
        ["state_dict:backbone_momentum"]
    );
}

#[test]
fn averaged_weights_are_named_and_taken_when_they_are_asked_for() {
    let file = CheckpointFile::open(&fixture("ema-beside.pth.tar")).unwrap();
    let network = Network::find(&file).unwrap();
    assert_eq!((network.role, network.origin.as_str()), (Role::Query, "state_dict: module.*"));
    let others: Vec<_> = network.others.iter().map(|other| (other.name.as_str(), other.is_averaged)).collect();
    assert_eq!(others, [("state_dict_ema", true)]);
    assert!(network.left_aside.contains(&"state_dict_ema".to_owned()));
    assert_whole(&network.weights(&Allow::nothing()).unwrap(), &[]);
    for name in ["ema", "state_dict_ema"] {
        let network = Network::find_called(&file, name).unwrap();
        assert_eq!(network.role, Role::Averaged);
        assert_averaged(&network.weights(&Allow::nothing()).unwrap());
    }

    let file = CheckpointFile::open(&fixture("ema-only.pth")).unwrap();
    let network = Network::find(&file).unwrap();
    assert_eq!((network.role, network.origin.as_str()), (Role::Averaged, "model_ema.module: *"));
    assert_averaged(&network.weights(&Allow::nothing()).unwrap());
}

#[test]
fn of_student_and_teacher_one_has_to_be_chosen() {
    let file = CheckpointFile::open(&fixture("dino.pth")).unwrap();
    let error = Network::find(&file).unwrap_err().to_string();
    assert!(error.contains("`student:module.backbone`") && error.contains("`teacher:backbone`"), "{error}");
    for name in ["student", "student:module.backbone"] {
        assert_whole(&Network::find_called(&file, name).unwrap().weights(&Allow::nothing()).unwrap(), &[]);
    }
    for name in ["teacher", "ema", "teacher:backbone"] {
        assert_averaged(&Network::find_called(&file, name).unwrap().weights(&Allow::nothing()).unwrap());
    }
}

#[test]
fn hugging_face_names_become_torchvision_s() {
    let path = fixture("transformers.bin");
    let (weights, layout, _) = read(&path);
    assert_eq!(layout, CheckpointLayout::Transformers);
    assert_whole(&weights, &[]);
    let file = CheckpointFile::open(&path).unwrap();
    let network = Network::find(&file).unwrap();
    assert_eq!(network.origin, "resnet.*");
    assert!(network.left_aside_summary().contains("classifier.* (2)"));
}

/// A file in safetensors of these tensors.
fn safetensors(tensors: &[(&str, Vec<u64>)]) -> CheckpointFile {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 4 * shape.iter().product::<u64>();
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, end] });
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end as usize, 0);
    CheckpointFile::from_bytes(bytes).expect("a file of safetensors")
}

/// Names and shapes of a ResNet with a stem of 4 channels, before `change`.
fn resnet(depths: [u64; 4], bottleneck: bool) -> Vec<(String, Vec<u64>)> {
    let mut tensors = Vec::new();
    let mut conv = |conv: String, norm: String, shape: [u64; 4]| {
        tensors.push((format!("{conv}.weight"), shape.to_vec()));
        let parts = ["weight", "bias", "running_mean", "running_var"];
        tensors.extend(parts.map(|part| (format!("{norm}.{part}"), vec![shape[0]])));
    };
    conv("conv1".to_owned(), "bn1".to_owned(), [4, 3, 7, 7]);
    let mut input = 4;
    for (stage, depth) in depths.into_iter().enumerate() {
        let middle = 4 << stage;
        let output = if bottleneck { 4 * middle } else { middle };
        for block in 0..depth {
            let name = format!("layer{}.{block}", stage + 1);
            let shapes = if bottleneck {
                vec![[middle, input, 1, 1], [middle, middle, 3, 3], [output, middle, 1, 1]]
            } else {
                vec![[middle, input, 3, 3], [middle, middle, 3, 3]]
            };
            for (i, shape) in (1..).zip(shapes) {
                conv(format!("{name}.conv{i}"), format!("{name}.bn{i}"), shape);
            }
            if block == 0 && input != output {
                conv(format!("{name}.downsample.0"), format!("{name}.downsample.1"), [output, input, 1, 1]);
            }
            input = output;
        }
    }
    tensors
}

#[test]
fn other_networks_are_refused_by_name() {
    type Change = fn(&mut Vec<(String, Vec<u64>)>);
    const FIFTY: [u64; 4] = [3, 4, 6, 3];
    let refusal = |tensors: &[(String, Vec<u64>)]| {
        let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
        let file = safetensors(&tensors);
        match Network::find(&file) {
            Ok(network) => network.weights(&Allow::nothing()).map(drop).unwrap_err().to_string(),
            Err(error) => error.to_string(),
        }
    };
    let renamed = |from: &str, to: &str| {
        let tensors = resnet([2, 2, 2, 2], false).into_iter();
        tensors.map(|(name, shape)| (name.replace(from, to), shape)).collect::<Vec<_>>()
    };
    // timm's resnet18d: three convolutions in the stem, and pooling in the shortcuts.
    let mut deep = renamed("downsample.1", "downsample.2");
    for (name, _) in &mut deep {
        *name = name.replace("downsample.0", "downsample.1");
    }
    assert!(refusal(&deep).contains("ResNet-D"), "{}", refusal(&deep));
    deep.iter_mut()
        .filter(|(name, _)| name == "conv1.weight")
        .for_each(|(name, _)| *name = "conv1.0.weight".to_owned());
    assert!(refusal(&deep).contains("resnet18d"), "{}", refusal(&deep));

    let bottleneck = |depths, change: Change| {
        let mut tensors = resnet(depths, true);
        change(&mut tensors);
        refusal(&tensors)
    };
    let cases: [(&str, String); 7] = [
        ("ResNet-152", bottleneck([3, 8, 36, 3], |_| ())),
        ("ResNet-26", bottleneck([2, 2, 2, 2], |_| ())),
        (
            "ResNeXt",
            bottleneck(FIFTY, |tensors| {
                let grouped = tensors.iter_mut().filter(|(name, _)| name.ends_with("conv2.weight"));
                grouped.for_each(|(_, shape)| shape[1] /= 4);
            }),
        ),
        (
            "Wide ResNet",
            bottleneck(FIFTY, |tensors| {
                let wide = tensors.iter_mut().filter(|(name, _)| name.ends_with("conv2.weight"));
                wide.for_each(|(_, shape)| (shape[0], shape[1]) = (2 * shape[0], 2 * shape[1]));
            }),
        ),
        (
            "SE-ResNet",
            bottleneck(FIFTY, |tensors| tensors.push(("layer1.0.se.fc1.weight".to_owned(), vec![1, 16, 1, 1]))),
        ),
        ("kernel of 3x3", bottleneck(FIFTY, |tensors| tensors[0].1 = vec![4, 3, 3, 3])),
        ("another normalisation", bottleneck(FIFTY, |tensors| tensors.retain(|(name, _)| !name.contains("running_")))),
    ];
    for (name, refusal) in cases {
        assert!(refusal.contains(name) && refusal.contains("not read"), "{name}: {refusal}");
    }
    for (names, family) in [
        (["cls_token", "patch_embed.proj.weight"], "vision transformer"),
        (["features.0.weight", "classifier.0.weight"], "VGG"),
        (["module.conv_stem.weight", "module.bn1.weight"], "EfficientNet"),
        (["stem.conv.weight", "stages.0.blocks.0.conv1.weight"], "another network"),
    ] {
        let refusal = refusal(&names.map(|name| (name.to_owned(), vec![1])));
        assert!(refusal.contains("no ResNet") && refusal.contains(family), "{refusal}");
    }
}

#[test]
fn a_head_of_another_form_is_left_aside_and_does_not_refuse_the_backbone() {
    let whole = resnet([2, 2, 2, 2], false);
    let prefixed = whole.iter().map(|(name, shape)| (format!("encoder_q.{name}"), shape.clone()));
    let mut tensors: Vec<_> = prefixed.collect();
    // With BatchNorm, without biases, of three layers.
    for (name, shape) in [
        ("encoder_q.fc.0.weight", vec![8, 32]),
        ("encoder_q.fc.1.running_mean", vec![8]),
        ("encoder_q.fc.2.weight", vec![8, 8]),
        ("encoder_q.fc.6.weight", vec![4, 8]),
        ("predictor.0.weight", vec![4, 4]),
    ] {
        tensors.push((name.to_owned(), shape));
    }
    let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (name.as_str(), shape.clone())).collect();
    let file = safetensors(&tensors);
    let network = Network::find(&file).unwrap();
    let weights = network.weights(&Allow::nothing()).unwrap();
    assert_eq!(weights.len(), whole.len());
    assert_eq!(network.left_aside_summary(), "encoder_q.fc.* (4), predictor.*");
}
