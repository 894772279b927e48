//! ONNX models in the trainer: exports are checked, calibrated and timed with the runtime of the
//! server, and models without a checkpoint are evaluated.
//!
//! ONNX Runtime is a shared library that is loaded when the first session is opened: training does not
//! need it. It has its own threads and memory in the process of libtorch; tensors are copied between
//! the two. On the CPU only.
//!
//! ONNX Runtime allows one environment per process: a process that also runs the server's engine
//! cannot open a session here.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use densecl_models::onnx_runtime_library;
use ort::environment::{Environment, EnvironmentBuilder};
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{OutputSelector, RunOptions, Session};
use ort::value::TensorRef;
use tch::{Device, Kind, Tensor};

static ENVIRONMENT: Mutex<Option<Environment>> = Mutex::new(None);

/// A model that is ready to run on the CPU.
///
/// ```no_run
/// use densecl_trainer::onnx_session::OnnxSession;
/// use tch::{Device, Kind, Tensor};
///
/// let mut session = OnnxSession::open("models/zoo/densecl-resnet18/1/model.onnx".as_ref(), 1)?;
/// let images = Tensor::zeros([2, 224, 224, 3], (Kind::Uint8, Device::Cpu));
/// let maps = session.run(&images, &["res4", "res5"])?; // [2, 256, 14, 14], [2, 512, 7, 7]
/// # anyhow::Ok(())
/// ```
#[derive(Debug)]
pub struct OnnxSession {
    session: Session,
    /// Name of the model's one input.
    input: String,
}

impl OnnxSession {
    /// Opens a model file; its runs use `threads` threads, the calling one included.
    ///
    /// # Errors
    /// If ONNX Runtime is not found, or cannot load the file.
    pub fn open(path: &Path, threads: usize) -> Result<Self> {
        let model = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_bytes(&model, threads).with_context(|| format!("cannot load {}", path.display()))
    }

    /// Opens a model from the bytes of its file.
    ///
    /// # Errors
    /// The errors of [`OnnxSession::open`].
    pub fn from_bytes(model: &[u8], threads: usize) -> Result<Self> {
        let session = builder(&environment()?, threads)
            .and_then(|mut builder| builder.commit_from_memory(model))
            .context("ONNX Runtime cannot load the model")?;
        let [input] = session.inputs() else {
            bail!("the model has {} inputs; expected one", session.inputs().len());
        };
        let input = input.name().to_owned();
        Ok(Self { session, input })
    }

    /// Names of everything that the model returns.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.session.outputs().iter().map(ort::value::Outlet::name)
    }

    /// Runs a batch of RGB `images`, uint8 `[N, H, W, 3]`; returns the float32 tensors called
    /// `outputs`, in that order, on the CPU.
    ///
    /// The whole graph is computed whichever outputs are asked for; cut the model where less will do
    /// ([`densecl_models::OnnxModel::cut`]).
    ///
    /// # Errors
    /// If the images have another form, an output does not exist or is not float32, or the run fails.
    pub fn run(&mut self, images: &Tensor, outputs: &[&str]) -> Result<Vec<Tensor>> {
        let shape = images.size();
        ensure!(
            matches!(shape[..], [_, _, _, 3]) && images.kind() == Kind::Uint8,
            "images are uint8 [N, H, W, 3]; these are {:?} {shape:?}",
            images.kind()
        );
        for &name in outputs {
            let known = || self.outputs().collect::<Vec<_>>().join(", ");
            ensure!(self.outputs().any(|output| output == name), "the model has no output `{name}`, but {}", known());
        }
        let images = images.to_device(Device::Cpu).contiguous();
        let mut pixels = vec![0_u8; images.numel()];
        images.copy_data(&mut pixels, images.numel());
        let input = TensorRef::from_array_view((shape, pixels.as_slice()))?;
        let wanted = outputs.iter().fold(OutputSelector::no_default(), |selector, &name| selector.with(name));
        let options = RunOptions::new()?.with_outputs(wanted);
        let inputs = ort::inputs![self.input.as_str() => input];
        let values = self.session.run_with_options(inputs, &options).context("ONNX Runtime cannot run the model")?;
        let tensor = |&name: &&str| {
            let value = values.get(name).with_context(|| format!("the model did not return `{name}`"))?;
            let (shape, data) = value.try_extract_tensor::<f32>().with_context(|| format!("output `{name}`"))?;
            Ok(Tensor::from_slice(data).view(&shape[..]))
        };
        outputs.iter().map(tensor).collect()
    }
}

fn builder(environment: &Environment, threads: usize) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(threads)?
        // Between two runs libtorch has work for the cores.
        .with_intra_op_spinning(false)?
        // Patterns are kept per input shape, and shapes vary here.
        .with_memory_pattern(false)?;
    Ok(if products_of_bytes_overflow() { builder.with_precise_qmm()? } else { builder })
}

/// Without VNNI, x86 sums products of bytes in 16 bits, which int8 models overflow; the server takes
/// the same slower kernels then.
fn products_of_bytes_overflow() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has_vnni = is_x86_feature_detected!("avx512vnni") || is_x86_feature_detected!("avxvnni");
    #[cfg(not(target_arch = "x86_64"))]
    let has_vnni = true;
    !has_vnni
}

/// The process's environment, made with the first session.
fn environment() -> Result<Environment> {
    let mut slot = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = &*slot {
        return Ok(environment.clone());
    }
    let named = env::var_os(onnx_runtime_library::VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let loaded = load(named.as_deref())?;
    let environment = loaded.with_telemetry(false).build().context("ONNX Runtime does not start")?;
    environment.set_log_level(LogLevel::Warning);
    *slot = Some(environment.clone());
    Ok(environment)
}

fn load(named: Option<&Path>) -> Result<EnvironmentBuilder> {
    if let Some(path) = named {
        // Checked here because a process that has loaded the library ignores another path.
        ensure!(path.is_file(), "ONNX Runtime is not at {}; run `make setup-server` to fetch it", path.display());
    }
    Ok(onnx_runtime_library::load(named, |path| ort::init_from(path))?)
}

#[cfg(test)]
mod tests {
    use densecl_models::graph::{Attribute, Axis, GraphBuilder};
    use densecl_models::proto::tensor_proto::DataType;
    use densecl_models::{Layer, Manifest, OnnxModel};

    use super::*;

    /// `float`: the images as numbers, `[N, H, W, 3]`; `pooled`: 2×2 maxima of the channels first.
    fn model() -> Vec<u8> {
        let mut builder = GraphBuilder::new("test");
        let images = [Axis::Named("N"), Axis::Named("H"), Axis::Named("W"), Axis::Fixed(3)];
        let input = builder.input("images", DataType::Uint8, &images);
        let to = Attribute::Int(DataType::Float as i64);
        let float = builder.node("Cast", &[&input], "float", &[("to", to)]);
        let first = ("perm", Attribute::Ints(vec![0, 3, 1, 2]));
        let nchw = builder.node("Transpose", &[&float], "nchw", &[first]);
        let ints = |values: &[i64]| Attribute::Ints(values.to_vec());
        builder.node("MaxPool", &[&nchw], "pooled", &[("kernel_shape", ints(&[2, 2])), ("strides", ints(&[2, 2]))]);
        builder.output("float", &images);
        builder.output("pooled", &[Axis::Named("N"), Axis::Fixed(3), Axis::Named("H/2"), Axis::Named("W/2")]);
        let manifest = Manifest {
            name: "test".into(),
            version: 1,
            method: "none".into(),
            architecture: "none".into(),
            layers: vec![Layer { name: "pooled".into(), channels: 3, stride: 2 }],
            global: None,
            default_layer: "pooled".into(),
            default_side: 32,
            mean: [0.0; 3],
            std: [1.0; 3],
            training: None,
            fidelity: None,
            licence: "Apache-2.0".into(),
        };
        OnnxModel::new(builder.finish(), manifest).unwrap().encode().unwrap()
    }

    /// Also checks that the two libraries work in one process, on several threads at once.
    #[test]
    fn computes_what_libtorch_computes_beside_it() {
        let check = |seed: i64| {
            let mut session = OnnxSession::from_bytes(&model(), 2).unwrap();
            for size in [2, 6, 34] {
                let count = 2 * size * (size + 2) * 3;
                let values = (Tensor::arange(count, (Kind::Int64, Device::Cpu)) * 7 + seed).remainder(256);
                let images = values.to_kind(Kind::Uint8).view([2, size, size + 2, 3]);
                let found = session.run(&images, &["pooled", "float"]).unwrap();
                let float = images.to_kind(Kind::Float);
                let pooled = float.permute([0, 3, 1, 2]).max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
                assert_eq!(found[0], pooled);
                assert_eq!(found[1], float);
            }
        };
        std::thread::scope(|scope| (0..3).for_each(|seed| drop(scope.spawn(move || check(seed)))));
    }

    #[test]
    fn images_of_another_form_and_unknown_outputs_are_refused() {
        let mut session = OnnxSession::from_bytes(&model(), 1).unwrap();
        let images = Tensor::zeros([1, 4, 4, 3], (Kind::Uint8, Device::Cpu));
        let error = session.run(&images, &["res9"]).unwrap_err().to_string();
        assert_eq!(error, "the model has no output `res9`, but float, pooled");
        for wrong in [images.to_kind(Kind::Float), images.get(0), images.permute([0, 3, 1, 2])] {
            let error = session.run(&wrong, &["pooled"]).unwrap_err().to_string();
            assert!(error.contains("uint8 [N, H, W, 3]"), "{error}");
        }
    }

    #[test]
    fn a_library_that_is_not_there_says_how_to_get_it() {
        let error = load(Some(Path::new("/no/such/libonnxruntime.so"))).err().expect("an error").to_string();
        assert!(error.contains("/no/such/libonnxruntime.so") && error.contains("make setup-server"), "{error}");
    }

    #[test]
    fn bytes_that_are_no_model_are_an_error() {
        let error = OnnxSession::from_bytes(b"no model", 1).unwrap_err();
        assert!(format!("{error:#}").contains("ONNX Runtime cannot load the model"), "{error:#}");
    }
}
