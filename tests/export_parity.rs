//! The server computes from an exported file what libtorch computes from the checkpoint, for every
//! output stride and every weight format.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use densecl_inference::backend::{ImageBatch, LayerSet, Load};
use densecl_inference::model_file::ModelFile;
use densecl_inference::onnx_runtime::{Device, Precision};
use densecl_models::OnnxModel;
use densecl_models::geometry::ImageSize;
use densecl_models::resnet::{Architecture, OutputStride};
use densecl_tests::pictures::{png, texture};
use densecl_tests::server::{TestServer, config, json, npy};
use densecl_trainer::augment::Normalization;
use densecl_trainer::config::Config;
use densecl_trainer::data::DataSource;
use densecl_trainer::network::{BatchPart, Encoder, EncoderSpec, FeatureNetwork, Statistics};
use densecl_trainer::pretrain::{Run, pretrain};
use densecl_trainer::pretrained::Pretrained;
use densecl_trainer::tensor_file::TensorFile;
use ndarray::{ArrayD, Axis};
use tch::{Kind, Tensor};

/// Height and width: square, wide and tall, and no multiples of the stride.
const SHAPES: [(i64, i64); 4] = [(96, 96), (64, 160), (224, 96), (75, 101)];

/// libtorch has one random generator for all threads: a network is a function of its seed only if no
/// other thread draws meanwhile.
static GENERATOR: Mutex<()> = Mutex::new(());

fn lock_generator() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run of a few steps, so that BatchNorm's statistics are not those of the start.
fn train(folder: &Path, overrides: &[&str]) -> PathBuf {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/configs/tiny.toml");
    let config = Config::read(&config, &overrides).expect("a config");
    let _generator = lock_generator();
    pretrain(&Run::new(config, folder.join("run"), tch::Device::Cpu)).expect("a run").checkpoint
}

/// Procedural pictures, uint8 `[N, S, S, 3]`; calibration has other seeds.
fn pictures(seed: u64, count: usize, side_px: u32) -> Tensor {
    let source = DataSource::open("synthetic", seed, side_px).expect("procedural images");
    source.samples(count, side_px).expect("images").pixels
}

/// Normalises uint8 images `[N, H, W, 3]` to float32 `[N, 3, H, W]`.
fn normalized(images: &Tensor) -> Tensor {
    Normalization::IMAGENET.apply(&(images.permute([0, 3, 1, 2]).to_kind(Kind::Float) / 255.0))
}

/// Writes a network with random weights that does not amplify rounding: the last BatchNorm of every
/// block scales its branch down, and the running statistics are those of procedural pictures. Measured
/// with five seeds, the mean cosines of its int8 exports lie between 0.9944 and 0.9961, at a bound of
/// 0.99, and the relative errors between 0.09 and 0.15, at a bound of 0.3.
fn write_damped_network(path: &Path, stem_width: i64, seed: i64) {
    /// Weight of the last BatchNorm of a block.
    const BRANCH_WEIGHT: f64 = 0.1;
    /// Batches after which a BatchNorm has forgotten its initial statistics: 0.9⁶⁰ is 0.002.
    const BATCHES: u64 = 60;
    let _generator = lock_generator();
    tch::manual_seed(seed);
    let spec = EncoderSpec { architecture: Architecture::ResNet18, stem_width, dim: 32, dense: true };
    let encoder = Encoder::new(spec, Kind::Float, tch::Device::Cpu);
    tch::no_grad(|| {
        for (name, _, tensor) in encoder.tensors().iter() {
            if name.contains(".layer") && name.ends_with(".bn2.weight") {
                let _ = tensor.shallow_clone().fill_(BRANCH_WEIGHT);
            }
        }
        for batch in 0..BATCHES {
            let input = normalized(&pictures(1000 + batch, 4, 128)); // [N, 3, S, S]
            encoder.embed(&input, Statistics::Batch { splits: 1, part: BatchPart::WHOLE });
        }
    });
    let tensors = encoder.tensors().iter();
    let tensors = tensors.map(|(name, _, tensor)| (name.trim_start_matches("backbone.").to_owned(), tensor.detach()));
    let metadata = [("densecl.method".to_owned(), "random".to_owned())].into();
    TensorFile { tensors: tensors.collect(), metadata }.write(path).expect("written");
}

/// Runs `densecl-trainer export CHECKPOINT --out FOLDER/zoo/NAME/1 ARGUMENTS`. The licence has to be said, because the
/// weights are not those of a run.
fn run_export(folder: &Path, name: &str, checkpoint: &Path, arguments: &[&str]) -> Output {
    let out = folder.join("zoo").join(name).join("1");
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainer_process"));
    command.arg("export").arg(checkpoint).arg("--out").arg(out).args(["--licence", "Apache-2.0"]).args(arguments);
    command.env("DENSECL_ONNXRUNTIME", densecl_tests::onnxruntime()).output().expect("a process")
}

/// The file of an export that succeeds.
fn exported(folder: &Path, name: &str, checkpoint: &Path, arguments: &[&str]) -> PathBuf {
    let output = run_export(folder, name, checkpoint, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder.join("zoo").join(name).join("1/model.onnx")
}

/// How far a layer is from libtorch's on images of one shape.
struct Difference {
    what: String,
    /// Largest difference over the largest value.
    relative_error: f64,
    mean_cosine: f64,
}

fn difference(what: String, found: &[f32], expected: &Tensor) -> Difference {
    let found = Tensor::from_slice(found).view_as(expected);
    let largest = |x: &Tensor| x.abs().max().double_value(&[]);
    let cosines = Tensor::cosine_similarity(&found, expected, 1, 1e-12);
    let relative_error = largest(&(&found - expected)) / largest(expected);
    Difference { what, relative_error, mean_cosine: cosines.mean(Kind::Double).double_value(&[]) }
}

/// Runs the file in the server's engine on random pixels and compares each of its layers.
fn differences(checkpoint: &Path, onnx: &Path, stride: OutputStride) -> Vec<Difference> {
    let pixels = |height, width| {
        let _generator = lock_generator();
        tch::manual_seed(4);
        Tensor::randint(256, [2, height, width, 3], (Kind::Uint8, tch::Device::Cpu))
    };
    differences_on(pixels, checkpoint, onnx, stride)
}

/// Compares on pictures such as the calibration has seen: an int8 model has no range for others.
fn differences_on_pictures(checkpoint: &Path, onnx: &Path, stride: OutputStride) -> Vec<Difference> {
    let side = SHAPES.iter().map(|&(height, width)| height.max(width)).max().unwrap_or_default();
    let pictures = pictures(7, 2, side as u32); // [2, S, S, 3]
    let cut = |height, width| pictures.narrow(1, 0, height).narrow(2, 0, width).contiguous();
    differences_on(cut, checkpoint, onnx, stride)
}

/// Compares on uint8 images `[2, H, W, 3]` of each of the [`SHAPES`].
fn differences_on(
    images: impl Fn(i64, i64) -> Tensor,
    checkpoint: &Path,
    onnx: &Path,
    stride: OutputStride,
) -> Vec<Difference> {
    let pretrained = Pretrained::read(checkpoint).expect("a checkpoint");
    // Building a network draws weights before it loads its own.
    let generator = lock_generator();
    let network = FeatureNetwork::from_weights(pretrained.architecture, &pretrained.weights, stride);
    let network = network.expect("a network");
    drop(generator);
    let model = OnnxModel::open(onnx).expect("a model");
    let mut engine = densecl_tests::engine(Device::Cpu);
    let file = ModelFile::open("tiny", 1, onnx).expect("a model");
    let mut differences = Vec::new();
    for (height, width) in SHAPES {
        let images = images(height, width); // [2, H, W, 3]
        let mut pixels = vec![0_u8; images.numel()];
        images.copy_data(&mut pixels, images.numel());
        let (first, second) = pixels.split_at(pixels.len() / 2);
        let batch = ImageBatch { height: height as usize, width: width as usize, images: &[first, second] };

        let expected = network.outputs(&normalized(&images));
        for layer in &model.manifest().layers {
            let expected = &expected[&layer.name];
            let layers = LayerSet::new([layer.name.clone()]).expect("one layer");
            let found = engine.run(&file, &layers, batch, Load::Idle).expect("a run").concat();
            let shape = [found.len(), found[0].channels, found[0].height, found[0].width].map(|dim| dim as i64);
            assert_eq!(shape[..], expected.size(), "{}", layer.name);
            // The manifest's stride is that of the map.
            let grid = layer.grid(ImageSize { width: width as u32, height: height as u32 });
            assert_eq!((found[0].height, found[0].width), (grid.height, grid.width), "{}", layer.name);
            let data: Vec<f32> = found.into_iter().flat_map(|image| image.data).collect();
            differences.push(difference(format!("{} {height}x{width}", layer.name), &data, expected));
        }
    }
    differences
}

/// Float32 exports at every output stride.
fn assert_parity(overrides: &[&str], layers: usize) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = train(folder.path(), overrides);
    for stride in OutputStride::ALL {
        let onnx =
            exported(folder.path(), &format!("s{stride}"), &checkpoint, &["--output-stride", &stride.to_string()]);
        let differences = differences(&checkpoint, &onnx, stride);
        assert_eq!(differences.len(), layers * SHAPES.len());
        for Difference { what, relative_error, .. } in differences {
            assert!(relative_error < 1e-4, "{what} at stride {stride} differs by {relative_error:e}");
        }
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

/// Float16 storage costs about its 11 bits, int8 its 8; the manifests state both errors, and the files
/// are smaller.
#[test]
fn smaller_weights_are_close_and_say_how_close() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = folder.path().join("network.safetensors");
    write_damped_network(&checkpoint, 16, 0);
    let size = |path: &Path| std::fs::metadata(path).expect("a file").len() as f64;
    let full = size(&exported(folder.path(), "float32", &checkpoint, &[]));
    let calibration = ["--calibration-images", "8", "--calibration-side", "224"];
    for (weights, arguments, share, least, errors) in
        [("float16", &[][..], 0.6, 0.9999, 1e-7..1e-2), ("int8", &calibration, 0.5, 0.99, 1e-3..0.3)]
    {
        for stride in [OutputStride::Stride32, OutputStride::Stride8] {
            let name = format!("{weights}-s{stride}");
            let output_stride = stride.to_string();
            let arguments = [&["--weights", weights, "--output-stride", &output_stride], arguments].concat();
            let onnx = exported(folder.path(), &name, &checkpoint, &arguments);
            assert!(size(&onnx) < share * full, "{name}: {} of {full}", size(&onnx));
            let differences = differences_on_pictures(&checkpoint, &onnx, stride);
            for Difference { what, mean_cosine, .. } in &differences {
                assert!(*mean_cosine > least, "{what} of {name} has a cosine of {mean_cosine}");
            }
            let worst = differences.iter().map(|difference| difference.relative_error).fold(0.0, f64::max);
            assert!(errors.contains(&worst), "{name}: {worst:e}");
            let fidelity = OnnxModel::open(&onnx).expect("a model").manifest().fidelity.clone().expect("a record");
            assert_eq!((fidelity.weights.as_str(), fidelity.calibration.is_some()), (weights, weights == "int8"));
            let names: Vec<&str> = fidelity.outputs.iter().map(|output| output.name.as_str()).collect();
            assert_eq!(names, ["res2", "res3", "res4", "res5", "dense", "global"]);
            assert!(fidelity.outputs.iter().all(|output| output.mean_cosine > least && output.relative_error > 0.0));
        }
    }
}

#[test]
fn layers_can_be_chosen_and_unknown_ones_leave_nothing_behind() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = train(folder.path(), &["schedule.epochs=1"]);
    let onnx = exported(folder.path(), "chosen", &checkpoint, &["--layers", "res5,res3"]);
    let model = OnnxModel::open(&onnx).expect("a model");
    assert_eq!(model.outputs().collect::<Vec<_>>(), ["res3", "res5"]);
    assert_eq!((model.manifest().global, model.manifest().default_layer.as_str()), (None, "res5"));
    for Difference { what, relative_error, .. } in differences(&checkpoint, &onnx, OutputStride::Stride32) {
        assert!(relative_error < 1e-4, "{what} differs by {relative_error:e}");
    }
    for (arguments, expected) in [
        (["--layers", "res3,res6"], "res2, res3, res4, res5, dense, global"),
        (["--layers", "global"], "--layers"),
        (["--calibration", "synthetic"], "int8"),
        (["--default-layer", "res6"], "default_layer"),
    ] {
        let output = run_export(folder.path(), "wrong", &checkpoint, &arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && message.contains(expected), "{arguments:?}: {message}");
        assert!(!folder.path().join("zoo/wrong").exists(), "{arguments:?}");
    }
}

/// Over HTTP, the dilated maps of an int8 model are close to those of the float32 one, also on a server
/// that runs models in float16.
#[tokio::test(flavor = "multi_thread")]
async fn dilated_int8_models_are_served() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let checkpoint = folder.path().join("network.safetensors");
    write_damped_network(&checkpoint, 32, 0);
    exported(folder.path(), "full", &checkpoint, &["--output-stride", "8"]);
    // Pictures like those that are requested below.
    let seen = folder.path().join("seen");
    std::fs::create_dir(&seen).expect("a folder");
    for seed in 2..18 {
        std::fs::write(seen.join(format!("{seed}.png")), png(&texture(seed, (0, 0), (200, 120)))).expect("a file");
    }
    let seen = seen.to_str().expect("a name in UTF-8");
    let int8 = ["--output-stride", "8", "--weights", "int8", "--calibration", seen];
    exported(folder.path(), "int8", &checkpoint, &int8);
    let picture = png(&texture(1, (0, 0), (200, 120)));
    let moved = png(&texture(1, (16, 8), (200, 120)));
    for precision in [Precision::Float32, Precision::Float16] {
        let mut config = config();
        config.models = folder.path().join("zoo");
        config.engine.precision = precision;
        let server = TestServer::with(config).await;
        let map = async |model: &str| -> ArrayD<f32> {
            let query = [("model", model), ("layer", "res5"), ("side", "192"), ("format", "npy")];
            npy(server.features(picture.clone(), &query)).await
        };
        let (full, int8) = (map("full").await, map("int8").await);
        assert_eq!(full.shape()[1..], [16, 24], "192 x 128 at stride 8");
        let cosines = (&full * &int8).sum_axis(Axis(0));
        let mean = cosines.mean().expect("cells");
        assert!(mean > 0.99 && cosines.iter().any(|&cosine| cosine < 0.999_999), "{precision:?}: {mean}");
        for model in ["full", "int8"] {
            let fields = [("model", model), ("layer", "res3"), ("side", "192"), ("grid", "32")];
            let reply = json(server.correspondence(&picture, &moved, &fields)).await;
            assert!(reply["matches"].as_array().expect("matches").len() > 10, "{model}");
        }
    }
}
