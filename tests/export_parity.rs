//! What ONNX Runtime computes from an exported file is what libtorch computes from the checkpoint.

use std::path::Path;

use densecl_models::OnnxModel;
use densecl_models::graph::WeightStorage;
use densecl_server::engine::{Device, ImageBatch, LayerSet, Load, ModelFile};
use densecl_trainer::augment::Normalization;
use densecl_trainer::checkpoint::{Checkpoint, locate};
use densecl_trainer::config::Config;
use densecl_trainer::export::{ExportOptions, export};
use densecl_trainer::pretrain::{Run, pretrain};
use densecl_trainer::pretrained::encoder_of;
use tch::{Kind, Tensor};

/// Height and width: square, wide and tall.
const SHAPES: [(i64, i64); 3] = [(96, 96), (64, 160), (224, 96)];

/// A run of a few steps, so that BatchNorm's statistics are not those of the start.
fn train(folder: &Path, overrides: &[&str]) -> std::path::PathBuf {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/configs/tiny.toml");
    let config = Config::read(&config, &overrides).expect("a config");
    pretrain(&Run::new(config, folder.join("run"), tch::Device::Cpu)).expect("a run").checkpoint
}

fn exported(folder: &Path, checkpoint: &Path, storage: WeightStorage) -> std::path::PathBuf {
    let options = ExportOptions { storage, default_layer: None, default_side: 224, licence: "Apache-2.0".to_owned() };
    export(checkpoint, &folder.join("zoo/tiny/1"), &options).expect("an export")
}

/// Largest difference over the largest value.
fn relative_error(found: &[f32], expected: &Tensor) -> f64 {
    let found = Tensor::from_slice(found).view_as(expected);
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    largest(&(found - expected)) / largest(expected)
}

fn errors(checkpoint: &Path, onnx: &Path) -> Vec<(String, f64)> {
    let checkpoint = Checkpoint::read(&locate(checkpoint).expect("a checkpoint")).expect("a checkpoint");
    let encoder = encoder_of(&checkpoint).expect("an encoder");
    let model = OnnxModel::open(onnx).expect("a model");
    let mut engine = densecl_tests::engine(Device::Cpu);
    let file = ModelFile { name: "tiny".into(), version: 1, path: onnx.into() };
    let mut errors = Vec::new();
    tch::manual_seed(4);
    for (height, width) in SHAPES {
        let images = Tensor::randint(256, [2, height, width, 3], (Kind::Uint8, tch::Device::Cpu));
        let mut pixels = vec![0_u8; images.numel()];
        images.copy_data(&mut pixels, images.numel());
        let (first, second) = pixels.split_at(pixels.len() / 2);
        let batch = ImageBatch { height: height as usize, width: width as usize, images: &[first, second] };

        let input = Normalization::IMAGENET.apply(&(images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0));
        let (maps, dense, _global) = encoder.features(&input);
        let dense = dense.as_ref();
        for layer in &model.manifest().layers {
            let expected = match layer.name.strip_prefix("res") {
                Some(number) => &maps.stages[number.parse::<usize>().expect("a stage") - 2],
                None => dense.expect("a dense head"),
            };
            let layers = LayerSet::new([layer.name.clone()]).expect("one layer");
            let found = engine.run(&file, &layers, batch, Load::Idle).expect("a run").concat();
            let shape = [found.len(), found[0].channels, found[0].height, found[0].width].map(|dim| dim as i64);
            assert_eq!(shape[..], expected.size(), "{}", layer.name);
            let data: Vec<f32> = found.into_iter().flat_map(|image| image.data).collect();
            errors.push((format!("{} {height}x{width}", layer.name), relative_error(&data, expected)));
        }
    }
    errors
}

fn assert_parity(overrides: &[&str], layers: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = train(folder.path(), overrides);
    let onnx = exported(folder.path(), &checkpoint, WeightStorage::Float32);
    let errors = errors(&checkpoint, &onnx);
    assert_eq!(errors.len(), layers * SHAPES.len());
    for (what, error) in errors {
        assert!(error < 1e-4, "{what} differs by {error:e}");
    }
}

#[test]
fn densecl_with_basic_blocks() {
    assert_parity(&["schedule.epochs=1"], 5);
}

#[test]
fn densecl_with_bottlenecks() {
    assert_parity(&["schedule.epochs=1", "network.architecture=resnet50", "network.stem_width=4"], 5);
}

#[test]
fn moco_v2_has_no_dense_layer() {
    assert_parity(&["schedule.epochs=1", "method=moco-v2"], 4);
}

/// Float16 storage costs about its 11 bits, and halves the file.
#[test]
fn float16_weights_are_close_and_small() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = train(folder.path(), &["schedule.epochs=1"]);
    let size = |path: &Path| std::fs::metadata(path).expect("a file").len() as f64;
    let full = size(&exported(folder.path(), &checkpoint, WeightStorage::Float32));
    let onnx = exported(folder.path(), &checkpoint, WeightStorage::Float16);
    assert!(size(&onnx) < 0.6 * full);
    let worst = errors(&checkpoint, &onnx).into_iter().map(|(_, error)| error).fold(0.0, f64::max);
    assert!((1e-7..1e-2).contains(&worst), "{worst:e}");
}
