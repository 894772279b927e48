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
    let extra = weights["conv1.weight"].clone();
    weights.insert("extra.weight".to_owned(), extra);
    write(&path, Target::Densecl, &weights, &BTreeMap::new()).unwrap();

    let file = CheckpointFile::open(&path).unwrap();
    let network = Network::find(&file).unwrap();
    let Err(WeightsError::Problems { problems, .. }) = network.weights(&Allow::nothing()) else { panic!("refused") };
    assert_eq!(problems.missing, ["bn1.bias", "layer4.1.conv2.weight"]);
    assert_eq!(problems.unexpected, ["extra.weight"]);
    assert_eq!(problems.mismatched, [("layer1.0.bn1.weight".to_owned(), "[1, 1], expected [1]".to_owned())]);
    let text = network.weights(&Allow::nothing()).unwrap_err().to_string();
    for name in ["bn1.bias", "layer4.1.conv2.weight", "extra.weight", "layer1.0.bn1.weight", "--allow"] {
        assert!(text.contains(name), "{text}");
    }

    let some = Allow::patterns(["extra.*".to_owned(), "bn1.*".to_owned()]);
    assert!(network.weights(&some).is_err(), "two are not allowed");
    let all = Allow::patterns(["extra.*".to_owned(), "*bn1.*".to_owned(), "layer4.1.conv2.weight".to_owned()]);
    let read = network.weights(&all).unwrap();
    assert!(!read.contains_key("layer1.0.bn1.weight") && !read.contains_key("extra.weight"));
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
    assert!(error.contains("`left.`") && error.contains("`right.`"), "{error}");

    write(&path, Target::Densecl, &of("left.").into_iter().collect(), &BTreeMap::new()).unwrap();
    assert_eq!(read(&path).1, CheckpointLayout::Prefixed);
}
